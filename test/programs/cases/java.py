"""java: the compiler and a program with threads, direct buffers, zip streams and collections."""
SECONDS = 120
SOURCE = r"""
import java.io.*; import java.nio.*; import java.util.*; import java.util.concurrent.*;
import java.util.stream.*; import java.util.zip.*;
public class Main {
    static long work(int seed) throws Exception {
        Random random = new Random(seed);
        Map<String, List<Integer>> map = new TreeMap<>();
        for (int i = 0; i < 20000; i++)
            map.computeIfAbsent("k" + random.nextInt(3000), k -> new ArrayList<>()).add(i);
        long sum = map.values().stream().mapToLong(l -> l.stream().mapToLong(x -> x).sum() * l.size())
            .reduce(0, (a, b) -> a * 31 + b);
        CRC32 crc = new CRC32();
        for (int i = 1; i < 25; i++) {
            ByteBuffer direct = ByteBuffer.allocateDirect(i * 10007);
            while (direct.hasRemaining()) direct.put((byte) random.nextInt(8));
            direct.flip(); crc.update(direct.duplicate());
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            try (GZIPOutputStream out = new GZIPOutputStream(bytes)) {
                byte[] copy = new byte[direct.remaining()]; direct.get(copy); out.write(copy);
            }
            crc.update(new GZIPInputStream(new ByteArrayInputStream(bytes.toByteArray())).readAllBytes());
        }
        return sum ^ crc.getValue();
    }
    public static void main(String[] args) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> results = new ArrayList<>();
        for (int i = 0; i < 4; i++) { int seed = i; results.add(pool.submit(() -> work(seed))); }
        for (Future<Long> result : results) System.out.println(result.get());
        pool.shutdown();
        Map<Integer, Long> lengths = IntStream.range(0, 200000).parallel().mapToObj(i -> "" + i)
            .collect(Collectors.groupingBy(String::length, TreeMap::new, Collectors.counting()));
        System.out.println(lengths);
    }
}
"""


def check(box):
    java = box.need("java", "default-jre-headless")
    javac = box.need("javac", "default-jdk-headless")
    options = ["-Xmx300m", "-Xshare:auto"]
    commands = [[javac, "-J-Xmx300m", "Main.java"], [java, *options, "-cp", ".", "Main"]]
    if box.whole:
        commands += [[java, *options, f"-XX:+Use{collector}GC", "-cp", ".", "Main"]
                     for collector in ("Serial", "Parallel", "G1")]
    box.both_commands(commands, files=["Main.class"], names=["java"],
                      setup=lambda preload: box.write("Main.java", SOURCE))
