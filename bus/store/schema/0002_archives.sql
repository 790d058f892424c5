-- Events that archives keep, a row for each archive that keeps one: an archived event outlives its deliveries, and goes
-- by its archive's retention alone. `number` is the order of ingestion and never used twice (AUTOINCREMENT), so that a
-- replay that was interrupted goes on behind the right one.
--   time      the event's own time, which replays go by (epoch seconds)
--   ts        when the bus took it, which retention goes by (ms)
--   size      what it counts for in SizeBytes
CREATE TABLE archived(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  archive INTEGER NOT NULL,
  time INTEGER NOT NULL,
  ts INTEGER NOT NULL,
  size INTEGER NOT NULL,
  body BLOB NOT NULL
);
-- Both indexes end in `number`, as every index of a table does: windows are read in order and counted without a body.
CREATE INDEX archived_time ON archived(archive, time);
CREATE INDEX archived_ts ON archived(archive, ts, size);

-- What each archive holds, kept in the transactions that add and remove: nobody has to count.
CREATE TABLE archive_size(archive INTEGER PRIMARY KEY, events INTEGER NOT NULL, bytes INTEGER NOT NULL);
