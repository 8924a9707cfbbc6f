use super::*;

/// A record as Debezium 3.6.1 sends it without schema.
const UPDATE: &str = r#"{"before":{"id":1,"email":"a@x"},"after":{"id":1,"email":"c@x"},"source":{"version":"3.6.1.Final","connector":"mysql","name":"shop","ts_ms":1795440273452,"snapshot":"false","db":"inv","sequence":null,"ts_us":1795440273452608,"ts_ns":1795440273452608000,"table":"users","server_id":1,"gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:207","file":"binlog.000002","pos":19738752,"row":3,"thread":16,"query":null},"transaction":null,"op":"u","ts_ms":1795440273500,"ts_us":1795440273500000,"ts_ns":1795440273500000000}"#;

fn decode(value: &str) -> Decoded<'_> {
    Decoder::default().decode(Some(br#"{"id":1}"#), Some(value.as_bytes()), Half::Whole)
}

fn reason(value: &[u8]) -> Reason {
    match Decoder::default().decode(None, Some(value), Half::Whole) {
        Decoded::Undecodable(reason) => reason,
        other => panic!("it was read: {other:?}"),
    }
}

fn control(key: &str, value: &str) -> Control {
    match Decoder::default().decode(Some(key.as_bytes()), Some(value.as_bytes()), Half::Whole) {
        Decoded::Control(control) => control,
        other => panic!("not control: {other:?}"),
    }
}

fn record(op: &str, before: &str, after: &str, source: &str) -> String {
    format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1}}"#)
}

const SOURCE: &str = r#"{"connector":"mysql","db":"inv","table":"t","server_id":1,"gtid":null,"file":"binlog.000009","pos":4,"row":0,"ts_ms":1000}"#;

#[test]
fn an_update_is_read_with_its_place() {
    let Decoded::Change(change) = decode(UPDATE) else { panic!("no change") };
    assert_eq!(change.op, Op::Update);
    assert_eq!(change.before, Some(r#"{"id":1,"email":"a@x"}"#));
    assert_eq!(change.after, Some(r#"{"id":1,"email":"c@x"}"#));
    let source = change.source;
    assert_eq!(source.table_id().to_string(), "inv.users");
    assert_eq!((source.server_id, source.at, source.row), (1, Coordinate { log: 2, offset: 19_738_752 }, 3));
    assert_eq!(source.transaction().to_string(), "3e11fa47-71ca-11e1-9e33-c80aa9429562:207");
    assert_eq!(source.commit_micros, 1_795_440_273_452_608);
    assert!(change.shape.is_none());
}

#[test]
fn the_ops_are_told_apart() {
    assert!(matches!(decode(&record("c", "null", "{}", SOURCE)), Decoded::Change(Change { op: Op::Insert, before: None, after: Some(_), .. })));
    assert!(matches!(decode(&record("d", "{}", "null", SOURCE)), Decoded::Change(Change { op: Op::Delete, before: Some(_), after: None, .. })));
    assert!(matches!(decode(&record("r", "null", "{}", SOURCE)), Decoded::Read(Change { op: Op::Snapshot, .. })));
    assert!(matches!(decode(&record("t", "null", "null", SOURCE)), Decoded::Truncate(_)));
}

#[test]
fn a_snapshot_has_no_transaction_and_no_server() {
    let source = r#"{"connector":"mysql","snapshot":"first","db":"inv","table":"t","server_id":0,"gtid":null,"file":"binlog.000001","pos":157,"row":0,"ts_us":1795440273000000}"#;
    let value = record("r", "null", "{}", source);
    let Decoded::Read(read) = decode(&value) else { panic!("not read") };
    assert_eq!((read.source.server_id, read.source.gtid, read.source.incremental), (0, None, false));
    let incremental = record("r", "null", "{}", &source.replace("first", "incremental"));
    let Decoded::Read(read) = decode(&incremental) else { panic!("not read") };
    assert!(read.source.incremental);
}

#[test]
fn the_halves_of_a_key_change_come_from_the_headers() {
    assert_eq!(Half::of_headers(["__debezium.context.taskId", "__debezium.newkey"]), Half::Old);
    assert_eq!(Half::of_headers(["__debezium.oldkey"]), Half::New);
    assert_eq!(Half::of_headers(["x"]), Half::Whole);
    assert!(Half::Old.ordinal() < Half::New.ordinal());
    let value = record("c", "null", "{}", SOURCE);
    let Decoded::Change(change) = Decoder::default().decode(None, Some(value.as_bytes()), Half::New) else { panic!("no change") };
    assert_eq!(change.half, Half::New);
}

#[test]
fn a_transaction_without_gtid_is_named_by_its_place() {
    let value = record("c", "null", "{}", SOURCE);
    let Decoded::Change(change) = decode(&value) else { panic!("no change") };
    assert_eq!(change.source.transaction(), TxnId::At(Coordinate { log: 9, offset: 4 }));
    assert_eq!(change.source.commit_micros, 1_000_000, "milliseconds where there is nothing finer");
    let mariadb = record("c", "null", "{}", &SOURCE.replace("mysql", "mariadb").replace("\"gtid\":null", "\"gtid\":\"0-1-5\""));
    let Decoded::Change(change) = decode(&mariadb) else { panic!("no change") };
    assert_eq!(change.source.gtid, None);
}

#[test]
fn positions_above_32_bits_and_file_numbers_above_six_digits_are_numbers() {
    let value = record("c", "null", "{}", &SOURCE.replace("binlog.000009", "binlog.1000000").replace("\"pos\":4", "\"pos\":5000000000"));
    let Decoded::Change(change) = decode(&value) else { panic!("no change") };
    assert_eq!(change.source.at, Coordinate { log: 1_000_000, offset: 5_000_000_000 });
}

#[test]
fn times_before_the_epoch_and_far_ahead_change_nothing_else() {
    let before = record("c", "null", "{}", &SOURCE.replace("\"ts_ms\":1000", "\"ts_ms\":-5"));
    let Decoded::Change(change) = decode(&before) else { panic!("no change") };
    assert_eq!(change.source.commit_micros, 0);
    let ahead = record("c", "null", "{}", &SOURCE.replace("\"ts_ms\":1000", "\"ts_ms\":9223372036854775807"));
    let Decoded::Change(change) = decode(&ahead) else { panic!("no change") };
    assert_eq!(change.source.commit_micros, i64::MAX);
}

/// The envelope's schema as Connect writes it, with a decimal.
const SCHEMA: &str = r#"{"type":"struct","fields":[{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"12"},"field":"price"}],"optional":true,"name":"shop.inv.t.Value","field":"before"},{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"12"},"field":"price"}],"optional":true,"name":"shop.inv.t.Value","field":"after"},{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"shop.inv.t.Envelope"}"#;

#[test]
fn a_connect_schema_is_read_once_and_told() {
    let mut decoder = Decoder::default();
    let wrap = |id: u32| format!(r#"{{"schema":{SCHEMA},"payload":{}}}"#, record("c", "null", &format!(r#"{{"id":{id},"price":"BNI="}}"#), SOURCE));
    let (first, second) = (wrap(1), wrap(22));
    let mut shapes = Vec::new();
    for text in [&first, &second] {
        let Decoded::Change(change) = decoder.decode(None, Some(text.as_bytes()), Half::Whole) else { panic!("no change") };
        let shape = change.shape.expect("a shape");
        assert_eq!(shape.field("price").map(|field| (field.ty.as_str(), field.scale)), Some(("bytes", Some(2))));
        shapes.push(shape);
    }
    assert!(Arc::ptr_eq(&shapes[0], &shapes[1]), "the schema was read again");
    // Another schema is not taken for the first one.
    let other = second.replace("\"scale\":\"2\"", "\"scale\":\"4\"");
    let Decoded::Change(change) = decoder.decode(None, Some(other.as_bytes()), Half::Whole) else { panic!("no change") };
    assert_eq!(change.shape.expect("a shape").field("price").and_then(|field| field.scale), Some(4));
}

#[test]
fn a_wrapped_record_in_another_order_is_read_as_well() {
    let text = format!("{{ \"payload\": {}, \"schema\": {SCHEMA} }}\n", record("c", "null", r#"{"id":1}"#, SOURCE));
    let mut decoder = Decoder::default();
    for _ in 0..2 {
        assert!(matches!(decoder.decode(None, Some(text.as_bytes()), Half::Whole), Decoded::Change(Change { shape: Some(_), .. })));
    }
}

#[test]
fn a_record_cut_off_after_a_known_schema_is_refused() {
    let mut decoder = Decoder::default();
    let whole = format!(r#"{{"schema":{SCHEMA},"payload":{}}}"#, record("c", "null", r#"{"id":1}"#, SOURCE));
    assert!(matches!(decoder.decode(None, Some(whole.as_bytes()), Half::Whole), Decoded::Change(_)));
    for end in [whole.len() - 1, whole.len() - 2, whole.len() - 30] {
        assert!(matches!(decoder.decode(None, Some(&whole.as_bytes()[..end]), Half::Whole), Decoded::Undecodable(Reason::NotJson(_))), "{end}");
    }
}

#[test]
fn what_is_no_row_is_control() {
    assert!(matches!(Decoder::default().decode(Some(br#"{"id":1}"#), None, Half::Whole), Decoded::Control(Control::Tombstone)));
    assert_eq!(control(r#"{"id":1}"#, r#"{"schema":null,"payload":null}"#), Control::Tombstone);
    assert_eq!(control(r#"{"serverName":"shop"}"#, r#"{"ts_ms":1795440273500}"#), Control::Heartbeat);
    assert_eq!(control(r#"{"schema":{"type":"struct"},"payload":{"serverName":"shop"}}"#, r#"{"schema":{"type":"struct"},"payload":{"ts_ms":1}}"#), Control::Heartbeat);
    assert_eq!(
        control(r#"{"databaseName":"inv"}"#, r#"{"source":{"connector":"mysql","db":"inv"},"ts_ms":1,"databaseName":"inv","ddl":"CREATE TABLE t (id INT)","tableChanges":[]}"#),
        Control::SchemaChange
    );
    assert_eq!(control(r#"{"id":"u:1"}"#, r#"{"status":"BEGIN","id":"u:1","event_count":null,"data_collections":null,"ts_ms":1}"#), Control::Transaction);
    assert_eq!(control(r#"{"id":"u:1"}"#, r#"{"status":"END","id":"u:1","event_count":2,"data_collections":[],"ts_ms":1}"#), Control::Transaction);
    assert_eq!(control("shop", r#"{"type":"execute-snapshot","data":{"data-collections":["inv.b"],"type":"incremental"}}"#), Control::Signal);
    let told = r#"{"id":"1","aggregate_type":"Incremental Snapshot","type":"STARTED","additional_data":{"x":"y"},"timestamp":1}"#;
    assert_eq!(control(r#"{"id":"1"}"#, told), Control::Notification);
}

#[test]
fn other_formats_are_named_with_the_setting_to_change() {
    for (value, expected) in [
        (&[0_u8, 0, 0, 0, 7, 0, 2, 4][..], Reason::Registry(7)),
        (&b"\x00\x00\x00\x00\x09{\"before\":null}"[..], Reason::RegistryJson(9)),
        (&[0x0A, 0x04, 0x08, 0x01, 0x12, 0x00][..], Reason::Binary),
        (&[0xFF, 0xFE, 0x00][..], Reason::Binary),
        (&b""[..], Reason::Empty),
    ] {
        assert_eq!(reason(value), expected, "{value:?}");
    }
    for reason in [Reason::Registry(7), Reason::RegistryJson(9), Reason::Binary] {
        assert!(reason.to_string().contains("`value.converter`"), "{reason}");
    }
}

#[test]
fn a_flattened_record_is_named_with_its_transform() {
    assert_eq!(reason(br#"{"id":1,"email":"a","__op":"c","__deleted":"false"}"#), Reason::Flattened("__op".into()));
    assert_eq!(reason(br#"{"id":1,"__deleted":"true"}"#), Reason::Flattened("__deleted".into()));
    assert_eq!(reason(br#"{"id":1,"email":"a"}"#), Reason::NoEnvelope);
    assert!(Reason::Flattened("__op".into()).to_string().contains("ExtractNewRecordState"));
    // A row of a flattened table with a column `ts_ms` is no heartbeat.
    assert_eq!(reason(br#"{"id":1,"ts_ms":1}"#), Reason::NoEnvelope);
}

#[test]
fn broken_envelopes_say_what_they_lack() {
    assert_eq!(reason(record("x", "null", "{}", SOURCE).as_bytes()), Reason::UnknownOp("x".into()));
    assert_eq!(reason(record("c", "null", "{}", "null").as_bytes()), Reason::NoSource);
    assert_eq!(reason(br#"{"before":null,"after":{},"op":"c"}"#), Reason::NoSource);
    assert_eq!(reason(br#"{"before":null,"after":{}}"#), Reason::NoOp);
    assert_eq!(reason(record("c", "null", "{}", &SOURCE.replace("\"table\":\"t\",", "")).as_bytes()), Reason::SourceLacks("table"));
    assert_eq!(reason(record("c", "null", "{}", &SOURCE.replace("mysql", "postgresql")).as_bytes()), Reason::Connector("postgresql".into()));
    assert_eq!(reason(record("c", "null", "null", SOURCE).as_bytes()), Reason::NoImage { op: "c", image: "after" });
    assert_eq!(reason(record("u", "null", "{}", SOURCE).as_bytes()), Reason::NoImage { op: "u", image: "before" });
    assert_eq!(reason(record("d", "null", "null", SOURCE).as_bytes()), Reason::NoImage { op: "d", image: "before" });
    assert_eq!(reason(br#"[1,2]"#), Reason::NoObject);
    assert_eq!(reason(br#""text""#), Reason::NoObject);
    assert!(matches!(reason(br#"{"op":"c""#), Reason::NotJson(_)));
    assert!(matches!(reason(b"hello"), Reason::NotJson(_)));
    assert!(matches!(reason(br#"{"op":5}"#), Reason::WrongType(_)));
    assert!(matches!(reason(br#"{"op":"c","source":{"db":"x","table":"t","pos":"secret"},"after":{}}"#), Reason::WrongType(_)));
}

#[test]
fn invalid_utf8_and_half_surrogates_are_refused() {
    let mut value = record("c", "null", r#"{"name":"?"}"#, SOURCE).into_bytes();
    let at = value.iter().position(|byte| *byte == b'?').expect("a mark");
    value[at] = 0xFF;
    assert_eq!(reason(&value), Reason::Utf8(at));
    let half = SOURCE.replace("\"table\":\"t\"", r#""table":"\ud800""#);
    assert_eq!(reason(record("c", "null", "{}", &half).as_bytes()), Reason::Surrogate);
}

#[test]
fn duplicate_fields_are_refused_and_not_chosen_from() {
    assert_eq!(reason(br#"{"op":"c","op":"d"}"#), Reason::Twice("op".into()));
    let twice = SOURCE.replace("\"pos\":4", "\"pos\":4,\"pos\":9");
    assert_eq!(reason(record("c", "null", "{}", &twice).as_bytes()), Reason::Twice("pos".into()));
}

#[test]
fn depth_never_ends_the_process() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_eq!(reason(deep.as_bytes()), Reason::NoObject);
    assert_eq!(reason(deep_object.as_bytes()), Reason::NoEnvelope);
    for value in [record("c", "null", &deep, SOURCE), record("c", &deep_object, &deep_object, SOURCE), record("c", "null", "{}", &deep_object)] {
        let _ = decode(&value);
    }
    let schema = format!(r#"{{"schema":{},"payload":{}}}"#, "{\"fields\":[".repeat(10_000) + &"]}".repeat(10_000), record("c", "null", "{}", SOURCE));
    assert!(matches!(decode(&schema), Decoded::Change(Change { shape: None, .. })));
    let unclosed = "[".repeat(100_000);
    assert!(matches!(reason(unclosed.as_bytes()), Reason::NotJson(_)));
}

#[test]
fn what_is_too_large_is_not_read() {
    let value = vec![b'{'; 101];
    let Decoded::Undecodable(reason) = Decoder::new(100).decode(None, Some(&value), Half::Whole) else { panic!("it was read") };
    assert_eq!(reason, Reason::TooLarge { size: 101, limit: 100 });
}

#[test]
fn reasons_never_quote_values() {
    for value in [
        r#"{"op":"c","source":{"db":"x","table":"t","pos":"sesame"},"after":{}}"#,
        r#"{"op":["sesame"]}"#,
        r#""sesame""#,
        r#"{"email":"sesame"}"#,
        r#"{"op":"c","after":{"name":"sesame"}"#,
    ] {
        let said = reason(value.as_bytes()).to_string();
        assert!(!said.contains("sesame"), "{said}");
    }
}

#[test]
fn cutting_a_record_anywhere_never_ends_the_process() {
    for end in 0..UPDATE.len() {
        let _ = Decoder::default().decode(None, Some(&UPDATE.as_bytes()[..end]), Half::Whole);
    }
    let wrapped = format!(r#"{{"schema":{SCHEMA},"payload":{UPDATE}}}"#);
    for i in (0..wrapped.len()).step_by(7) {
        let mut bytes = wrapped.clone().into_bytes();
        bytes[i] ^= 0x15;
        let _ = Decoder::default().decode(Some(&bytes), Some(&bytes), Half::Whole);
    }
}
