"""sqlite3: inserts, indexes, joins, a rollback, VACUUM and integrity_check."""
SECONDS = 60
SQL = """
PRAGMA journal_mode=WAL;
CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, size REAL, data BLOB);
CREATE TABLE b(id INTEGER PRIMARY KEY, a_id INTEGER REFERENCES a(id), note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
  INSERT INTO a SELECT i, 'name' || (i * 7919 % 40009), i / 3.0, zeroblob(i % 300) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
  INSERT INTO b SELECT i, i * 31 % 40000 + 1, hex(i * 104729) FROM n;
CREATE INDEX by_name ON a(name);
CREATE INDEX by_note ON b(note, a_id);
SELECT count(*), sum(length(data)), max(name) FROM a;
SELECT a.name, count(*) c, group_concat(b.note) FROM a JOIN b ON b.a_id = a.id
  WHERE a.size > 500 GROUP BY a.name ORDER BY c DESC, a.name LIMIT 50;
BEGIN; DELETE FROM a WHERE id % 3 = 0; UPDATE b SET note = note || note; ROLLBACK;
DELETE FROM b WHERE id % 5 = 0;
SELECT name, row_number() OVER (PARTITION BY length(data) ORDER BY name) FROM a
  WHERE id % 400 = 0 ORDER BY name;
SELECT json_group_array(json_object('id', id, 'note', note)) FROM b WHERE id < 200;
VACUUM;
PRAGMA integrity_check;
.dump b
"""


def check(box):
    sqlite = box.need("sqlite3", "sqlite3")

    def story(preload):
        result = box.run([sqlite, "-bail", "data.db"], preload, stdin=SQL.encode())
        return {"output": result.out, "errors": result.err, "database": box.read("data.db")}

    box.both(story)
    box.expect_served("sqlite3")
