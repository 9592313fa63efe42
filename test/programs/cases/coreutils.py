"""The everyday ones: bash, sort, awk, sed, tar, gzip, xz, diff, find, bc."""
SECONDS = 60
SCRIPT = r"""
set -e
awk 'BEGIN { for (i = 0; i < 200000; i++) printf "%d %x line %d\n", i * 7919 % 200003, i, i % 100 }' > lines
sort -n lines | md5sum
sort --parallel=2 -S 20M -k3 -k1,1r lines | md5sum
awk '{ count[$4]++; sum[$4] += $1 } END { for (k in count) print k, count[k], sum[k] }' lines | sort
sed -E 's/([0-9]+) (.*)/\2 \1/; s/line/LINE/g' lines | md5sum
mkdir tree; for i in $(seq 1 200); do head -c $((i * 50)) lines > tree/$i; done
tar --sort=name --mtime=@0 --owner=0 --group=0 -cf tree.tar tree
gzip -n -k tree.tar; xz -T2 -k tree.tar; md5sum tree.tar.gz tree.tar.xz
xz -dc tree.tar.xz | cmp - tree.tar
diff -u --label a --label b <(head -5000 lines) <(head -5000 lines | sed 's/9/8/') | md5sum
find tree -type f -size +5k | sort | wc -l
text=; for i in $(seq 1 3000); do text="$text$i,"; done; echo ${#text}
declare -A map; for i in $(seq 1 5000); do map[$i]=$((i * i)); done; echo ${#map[@]} ${map[77]}
grep -cE '(1.*2.*3|9{3})' lines
"""


def check(box):
    bash = box.need("bash", "bash")
    box.need("xz", "xz-utils")
    box.both_commands([[bash, "-c", SCRIPT]], names=["sort", "tar", "xz", "sed"])
