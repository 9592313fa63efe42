"""ffmpeg: synthetic sound and pictures encoded, filtered and decoded again, bit for bit."""
SECONDS = 60


def check(box):
    ffmpeg = box.need("ffmpeg", "ffmpeg")
    quiet = [ffmpeg, "-nostdin", "-v", "error", "-y"]
    exact = ["-threads", "1", "-flags", "+bitexact", "-fflags", "+bitexact", "-map_metadata", "-1"]
    box.both_commands(
        [[*quiet, "-f", "lavfi", "-i", "testsrc=duration=2:size=320x240:rate=25", "-f", "lavfi",
          "-i", "sine=frequency=440:duration=2", "-c:v", "mpeg4", "-c:a", "aac", *exact, "a.mkv"],
         [*quiet, "-i", "a.mkv", "-vf", "scale=640:480,hue=h=90,unsharp", "-c:v", "mjpeg", "-an",
          *exact, "b.avi"],
         [*quiet, "-i", "b.avi", "-f", "framemd5", *exact, "b.md5"],
         [*quiet, "-i", "a.mkv", "-vn", "-f", "wav", *exact, "c.wav"]],
        files=["a.mkv", "b.avi", "b.md5", "c.wav"], names=["ffmpeg"])
