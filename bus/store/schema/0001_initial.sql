-- Events that still have work to do, or that something asked to keep. Sequence numbers are never used twice
-- (AUTOINCREMENT), so that a cursor held across a restart neither skips nor repeats. The body comes last: what is
-- behind it could only be read through it.
CREATE TABLE event(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL,
  bus INTEGER NOT NULL,
  ts INTEGER NOT NULL,
  keep INTEGER NOT NULL DEFAULT 0,
  attrs BLOB,
  body BLOB NOT NULL
);
-- The log is read in the order of its cursor, whatever span of time is asked for, and trimmed by time.
CREATE INDEX event_kept ON event(bus, seq, ts) WHERE keep;
CREATE INDEX event_kept_ts ON event(bus, ts) WHERE keep;

-- One row per delivery that is not settled. Keyed by event first, so that "was this the event's last
-- delivery" is one look-up; `due` serves the lanes, `expires` the sweep for events grown too old.
CREATE TABLE delivery(
  seq INTEGER NOT NULL,
  route INTEGER NOT NULL,
  due INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT,
  PRIMARY KEY(seq, route)
) WITHOUT ROWID;
CREATE INDEX delivery_due ON delivery(route, due, seq);
CREATE INDEX delivery_expires ON delivery(expires);
-- An event that nothing keeps goes with its last delivery.
CREATE TRIGGER delivery_last AFTER DELETE ON delivery BEGIN
  DELETE FROM event WHERE seq = OLD.seq AND NOT keep AND NOT EXISTS (SELECT 1 FROM delivery WHERE seq = OLD.seq);
END;

-- Keys that callers gave to an event; trimmed by age.
CREATE TABLE dedup(bus INTEGER NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, ts INTEGER NOT NULL,
  PRIMARY KEY(bus, key)) WITHOUT ROWID;
CREATE INDEX dedup_ts ON dedup(ts);

-- Configuration under one revision; a deleted key stays as a tombstone for those who watch.
CREATE TABLE conf(kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB, rev INTEGER NOT NULL,
  PRIMARY KEY(kind, key)) WITHOUT ROWID;
CREATE INDEX conf_rev ON conf(rev);

-- Messages of the embedded queues; `number` is the order of arrival and never used twice (AUTOINCREMENT).
--   visible         when it may be received: later than now while it is delayed or in flight (ms)
--   sent            where its retention starts (ms); `first_sent` is when it was sent, where that differs
--   received        the latest receive from this queue, 0 before the first: tells in flight from delayed (ms)
--   receives        receives so far, those in queues it was dead-lettered from included
--   head            FIFO only: 1 for the first message of its group, 0 for those behind it
--   grp, dedup      MessageGroupId and MessageDeduplicationId
--   origin          ARN of the queue it was dead-lettered from
-- No row of another queue is touched by any query below: each index starts with the queue.
CREATE TABLE message(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  queue INTEGER NOT NULL,
  visible INTEGER NOT NULL,
  sent INTEGER NOT NULL,
  first_sent INTEGER,
  received INTEGER NOT NULL DEFAULT 0,
  receives INTEGER NOT NULL DEFAULT 0,
  first_received INTEGER,
  head INTEGER,
  id TEXT NOT NULL,
  grp TEXT,
  dedup TEXT,
  origin TEXT,
  body TEXT NOT NULL,
  attrs BLOB
);
-- Serves receives, counts (all columns they look at are in it) and the expiry of what was never received, whose
-- `visible` lies at most a delay after `sent`. What was received expires by the second index, which costs a send nothing.
CREATE INDEX message_visible ON message(queue, visible, sent, received);
CREATE INDEX message_received ON message(queue, sent) WHERE receives > 0;
-- A FIFO queue is received from by its groups' heads, so that a locked group costs nothing however long it is.
CREATE INDEX message_head ON message(queue, visible) WHERE head = 1;
CREATE INDEX message_group ON message(queue, grp) WHERE head IS NOT NULL;
CREATE TRIGGER message_next_head AFTER DELETE ON message WHEN OLD.head = 1 BEGIN
  UPDATE message SET head = 1 WHERE number = (
    SELECT number FROM message WHERE queue = OLD.queue AND grp = OLD.grp AND head IS NOT NULL ORDER BY number LIMIT 1);
END;

-- The deduplication memory of FIFO queues: the first bearer of each name, trimmed by age.
CREATE TABLE message_dedup(queue INTEGER NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, id TEXT NOT NULL,
  ts INTEGER NOT NULL, PRIMARY KEY(queue, key)) WITHOUT ROWID;
CREATE INDEX message_dedup_ts ON message_dedup(ts);
