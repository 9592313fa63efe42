"""ImageMagick: noise, blur, resize, quantize and formats, by hash and pixel by pixel."""
SECONDS = 60


def check(box):
    # By Debian's own name: other programs are called convert as well.
    convert = box.need("convert-im6.q16", "imagemagick-6.q16")
    limits = {"MAGICK_THREAD_LIMIT": "2", "OMP_NUM_THREADS": "2"}
    box.both_commands(
        [[convert, "-seed", "7", "-size", "600x400", "plasma:red-blue", "-depth", "8", "a.ppm"],
         [convert, "a.ppm", "-resize", "150%", "-blur", "0x3", "-rotate", "17", "b.ppm"],
         [convert, "b.ppm", "-colors", "64", "-strip", "-define", "png:exclude-chunk=date,time",
          "c.png"],
         [convert, "c.png", "-quality", "85", "-strip", "d.jpg"],
         [convert, "a.ppm", "(", "+clone", "-flip", ")", "-append", "-negate", "-charcoal", "2",
          "e.ppm"]],
        files=["a.ppm", "b.ppm", "c.png", "d.jpg", "e.ppm"], env=limits)
    if box.has_stats and not any(name.startswith("convert") for name in box.served()):
        box.expect_served("convert-im6.q16")
