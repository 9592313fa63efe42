"""ghostscript: PostScript to pixels, and to PDF and back to pixels."""
SECONDS = 60
PAGE = r"""%!PS
/Times-Roman findfont 24 scalefont setfont
1 1 8 { /page exch def
  0 1 60 { /i exch def
    gsave i 9 mul page 70 mul translate i page mul rotate
    i 60 div page 8 div 0.5 setrgbcolor 0 0 moveto 40 i 3 mul rlineto 20 -30 rlineto closepath fill
    0 setgray 5 5 moveto (page ) show page 10 string cvs show i 3 string cvs show grestore
  } for
  << /ShadingType 2 /ColorSpace /DeviceRGB /Coords [ 0 0 600 800 ]
     /Function << /FunctionType 2 /Domain [ 0 1 ] /C0 [ 1 0 0 ] /C1 [ 0 0 1 ] /N 1.5 >> >>
  gsave 50 50 200 200 rectclip shfill grestore
  showpage
} for
"""


def check(box):
    gs = box.need("gs", "ghostscript")
    quiet = [gs, "-q", "-dNOPAUSE", "-dBATCH", "-dSAFER", "-r60", "-sDEVICE=ppmraw"]
    box.both_commands(
        [[*quiet, "-sOutputFile=a%d.ppm", "page.ps"],
         [gs, "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=pdfwrite", "-sOutputFile=page.pdf", "page.ps"],
         [*quiet, "-dTextAlphaBits=4", "-sOutputFile=b%d.ppm", "page.pdf"]],
        files=["a1.ppm", "a8.ppm", "b1.ppm", "b8.ppm"], names=["gs"],
        setup=lambda preload: box.write("page.ps", PAGE))
