use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::FormatDescriptionEvent;
use plumbline_sdk::{Coordinate, ValueRef};

use super::*;

const SERVER: [u8; 16] = [7; 16];

/// What a server would send, event by event, on one table `shop.t (id INT)`.
struct Server {
    assembler: Assembler,
    end: u64,
}

impl Server {
    fn new(gtids: bool) -> Self {
        let mut server = Self { assembler: Assembler::new("shop".into(), Watch::new(Vec::new(), Vec::new())), end: 4 };
        server.assembler.restart(Position {
            server: "s".into(),
            file: "binlog.000001".into(),
            at: Coordinate { log: 1, offset: 4 },
            gtids: gtids.then(Default::default),
            ..Position::default()
        });
        let column = plumbline_sdk::Column {
            name: "id".into(),
            ty: plumbline_sdk::ColumnType::Int { unsigned: false },
            nullable: false,
            key_ordinal: Some(1),
            generated: false,
            charset: None,
        };
        let schema = TableSchema { id: TableId::new("shop", "t"), columns: vec![column] };
        server.assembler.learn(vec![DiscoveredTable { schema, excluded_by: None }]);
        server
    }
    fn send(&mut self, ty: u8, data: &[u8]) -> Result<()> {
        let size = u32::try_from(19 + data.len()).expect("a small event");
        self.end += u64::from(size);
        let mut bytes = vec![1, 0, 0, 0, ty, 1, 0, 0, 0];
        bytes.extend(size.to_le_bytes());
        bytes.extend((self.end as u32).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        let description = FormatDescriptionEvent::new(BinlogVersion::Version4);
        self.assembler.take(&WireEvent::read(&description, &bytes[..]).expect("an event"))
    }
    fn gtid(&mut self, number: u64, length: u64) {
        let mut data = vec![0];
        data.extend(SERVER);
        data.extend(number.to_le_bytes());
        data.push(2);
        data.extend([0; 16]);
        data.extend([1, 0, 0, 0, 0, 0, 0]);
        data.push(254);
        data.extend(length.to_le_bytes());
        data.extend(90_000_u32.to_le_bytes());
        let ty = if number == 0 { kind::ANONYMOUS_GTID } else { kind::GTID };
        self.send(ty, &data).expect("a GTID");
    }
    fn query(&mut self, text: &str) -> Result<()> {
        let mut data = vec![0; 8];
        data.extend([4, 0, 0, 0, 0]);
        data.extend(b"shop\0");
        data.extend(text.as_bytes());
        self.send(kind::QUERY, &data)
    }
    fn insert(&mut self, ids: std::ops::Range<i32>) {
        let mut map = vec![1, 0, 0, 0, 0, 0, 1, 0, 4];
        map.extend(b"shop\0\x01t\0\x01\x03\0\0");
        map.extend([1, 1, 0, 4, 3, 2, b'i', b'd', 8, 1, 0]);
        self.send(kind::TABLE_MAP, &map).expect("a table map");
        let mut rows = vec![1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 1];
        for id in ids {
            rows.push(0);
            rows.extend(id.to_le_bytes());
        }
        self.send(kind::WRITE, &rows).expect("rows");
    }
    fn commit(&mut self) {
        self.send(kind::XID, &[0; 8]).expect("a commit");
    }
    fn batch(&mut self) -> Batch {
        let batch = self.assembler.batch();
        assert_eq!(batch.records, changes_in(&batch.events) + batch.control, "records = changes + control");
        batch
    }
}

fn ids(batch: &Batch) -> Vec<i64> {
    let id = |event: &Event| match event {
        Event::Change(change) => match change.after.as_ref().map(|row| row.get(0)) {
            Some(ValueRef::Int(id)) => Some(id),
            _ => None,
        },
        _ => None,
    };
    batch.events.iter().filter_map(id).collect()
}

#[test]
fn a_transaction_comes_whole_with_its_place() {
    let mut server = Server::new(true);
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(1..4);
    assert!(!server.assembler.has_events(), "nothing is whole before the commit");
    server.commit();
    let batch = server.batch();
    assert_eq!(ids(&batch), [1, 2, 3]);
    assert_eq!(batch.transactions.len(), 1);
    let position = batch.position.expect("a position");
    assert!(position.contains(&batch.transactions[0].id));
    assert_eq!(position.at.offset, server.end);
}

#[test]
fn a_transaction_between_a_batch_and_a_part_is_read_on() {
    let mut server = Server::new(true);
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(0..6_000);
    assert!(!server.assembler.full(), "an open transaction of 6000 rows is neither a full batch nor a part");
    server.commit();
    assert!(server.assembler.full());
    assert_eq!(ids(&server.batch()).len(), 6_000);
}

#[test]
fn a_large_transaction_comes_in_parts_and_a_broken_connection_does_not_set_it_back() {
    let mut server = Server::new(true);
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(0..20_000);
    assert!(server.assembler.full());
    let first = server.batch();
    assert!(!first.transactions[0].complete);
    let stood = first.position.clone().expect("a position");
    assert_eq!(stood.included(&first.transactions[0].id), 20_000);
    server.assembler.restart(stood.clone());
    let news = server.batch().position.expect("a position");
    assert_eq!(news.partial, stood.partial, "the first news after the restart lies where it lay");
    server.end = 4;
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(0..20_000);
    let again = server.batch();
    assert_eq!(again.new_changes(&again.transactions[0], Some(&stood)).count(), 0);
    server.insert(20_000..20_005);
    server.commit();
    let rest = server.batch();
    assert_eq!(rest.new_changes(&rest.transactions[0], Some(&stood)).count(), 5);
    assert_eq!(rest.position.and_then(|position| position.partial), None);
}

#[test]
fn what_was_rolled_back_to_a_savepoint_is_no_change() {
    let mut server = Server::new(true);
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(1..2);
    server.query("SAVEPOINT `a`").expect("a savepoint");
    server.insert(2..3);
    server.query("ROLLBACK TO `A`").expect("a way back");
    server.insert(3..4);
    server.commit();
    assert_eq!(ids(&server.batch()), [1, 3]);
    server.gtid(2, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(4..5);
    server.query("ROLLBACK").expect("a rollback");
    let batch = server.batch();
    assert_eq!(ids(&batch), [0_i64; 0]);
    assert_eq!(batch.position.map(|position| position.to_string()).as_deref(), Some("07070707-0707-0707-0707-070707070707:1-2"));
}

#[test]
fn what_xa_prepares_counts_when_it_commits_and_is_asked_for_again_until_then() {
    let mut server = Server::new(true);
    let prepare = |server: &mut Server| {
        server.gtid(1, 0);
        server.query("XA START X'61',X'',1").expect("a start");
        server.insert(1..2);
        server.query("XA END X'61',X'',1").expect("an end");
        server.send(kind::XA_PREPARE, &[0; 13]).expect("a prepare");
    };
    prepare(&mut server);
    server.gtid(2, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(2..3);
    server.commit();
    let batch = server.batch();
    assert_eq!(ids(&batch), [2]);
    let position = batch.position.expect("a position");
    assert_eq!(position.to_string(), "07070707-0707-0707-0707-070707070707:2");
    server.assembler.restart(position);
    prepare(&mut server);
    server.gtid(3, 0);
    server.query("XA COMMIT X'61',X'',1").expect("a commit");
    let batch = server.batch();
    assert_eq!(ids(&batch), [1]);
    assert_eq!(batch.position.map(|position| position.to_string()).as_deref(), Some("07070707-0707-0707-0707-070707070707:1-3"));
    server.gtid(4, 0);
    assert!(server.query("XA COMMIT X'62',X'',1").is_err(), "nobody knows what it changed");
}

#[test]
fn places_above_four_gib_go_on_where_the_events_numbers_wrap() {
    let mut server = Server::new(false);
    server.end = u64::from(u32::MAX) - 60;
    server.assembler.restart(Position { at: Coordinate { log: 1, offset: server.end }, ..server.assembler.position.clone() });
    let start = server.end;
    server.gtid(0, 1_000);
    server.query("BEGIN").expect("a begin");
    server.insert(1..2);
    server.commit();
    let batch = server.batch();
    assert_eq!(batch.transactions[0].at.offset, server.end);
    assert!(server.end > 1 << 32);
    assert_eq!(batch.transactions[0].id, TxnId::At(Coordinate { log: 1, offset: start + 1_000 }), "named by the length that its first event tells");
}

#[test]
fn a_statement_that_changes_rows_is_refused_by_the_name_of_its_table() {
    let refused = |text: &str| {
        let mut server = Server::new(true);
        server.gtid(1, 0);
        server.query("BEGIN").expect("a begin");
        server.query(text)
    };
    let error = refused("UPDATE t SET id = 2").expect_err("a refusal");
    assert!(error.to_string().contains("UNSUPPORTED_STATEMENT") && error.to_string().contains("`shop.t`"), "{error}");
    assert!(refused("WITH x AS (SELECT 1) DELETE FROM t").is_err());
    assert!(refused("INSERT INTO other.t VALUES (1)").is_ok());
}

#[test]
fn a_statement_of_another_kind_inside_a_transaction_does_not_end_it() {
    let mut server = Server::new(true);
    server.gtid(1, 0);
    server.query("BEGIN").expect("a begin");
    server.insert(1..2);
    server.query("DROP TEMPORARY TABLE IF EXISTS `x`").expect("a statement");
    server.insert(2..3);
    server.commit();
    let batch = server.batch();
    assert_eq!((batch.transactions.len(), ids(&batch).len()), (1, 2));
}
