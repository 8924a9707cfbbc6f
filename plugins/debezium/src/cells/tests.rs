use plumbline_sdk::canon::value_of_source_text;
use plumbline_sdk::{Date, DateTime, TableId};

use super::*;

fn column(name: &str, ty: ColumnType) -> Column {
    Column { name: name.into(), ty, nullable: true, key_ordinal: None, generated: false, charset: None }
}

fn table(columns: Vec<Column>) -> Arc<TableSchema> {
    Arc::new(TableSchema { id: TableId::new("inv", "t"), columns })
}

/// Reads one cell of one column.
fn read(ty: ColumnType, field: Option<Field>, settings: &Settings, cell: &str) -> Result<Row, Misfit> {
    let shape = field.map(|field| Shape::of([("c".to_owned(), field)]));
    let plan = Plan::new(table(vec![column("c", ty)]), shape.as_ref(), settings);
    plan.row(&mut Cells::default(), &format!(r#"{{"c":{cell}}}"#)).map(|read| read.row)
}

/// The cell is this value, by our own connector's settings and without schema.
fn check(ty: ColumnType, cell: &str, expected: ValueRef<'_>) {
    let row = read(ty.clone(), None, &Settings::default(), cell).unwrap_or_else(|error| panic!("{ty} {cell}: {error}"));
    assert_eq!(row.get(0), expected, "{ty} {cell}");
}

/// The same, where a Connect schema says what the field is.
fn check_as(ty: ColumnType, field: (&str, &str), cell: &str, expected: ValueRef<'_>) {
    let field = Field { ty: field.0.into(), name: (!field.1.is_empty()).then(|| field.1.into()), scale: None };
    let row = read(ty.clone(), Some(field), &Settings::default(), cell).unwrap_or_else(|error| panic!("{ty} {cell}: {error}"));
    assert_eq!(row.get(0), expected, "{ty} {cell}");
}

fn refuse(ty: ColumnType, cell: &str) {
    let error = match read(ty.clone(), None, &Settings::default(), cell) {
        Err(error) => error.to_string(),
        Ok(row) => panic!("{ty} {cell} was read as {:?}", row.get(0)),
    };
    assert!(error.contains("`c`") && error.contains(&ty.to_string()), "{error}");
    let quoted = cell.trim_matches('"');
    assert!(quoted.len() < 4 || !error.contains(quoted), "the value is in `{error}`");
}

fn at(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8, micros: u32) -> DateTime {
    DateTime { date: Date { year, month, day }, hour, minute, second, micros }
}

const SMALL: ColumnType = ColumnType::TinyInt { unsigned: false, boolean: false };
const DECIMAL: ColumnType = ColumnType::Decimal { precision: 12, scale: 2 };

#[test]
fn integers_keep_to_their_range() {
    check(SMALL, "-128", ValueRef::Int(-128));
    check(ColumnType::TinyInt { unsigned: true, boolean: false }, "255", ValueRef::UInt(255));
    check(ColumnType::TinyInt { unsigned: false, boolean: true }, "true", ValueRef::Int(1));
    check(ColumnType::MediumInt { unsigned: false }, "-8388608", ValueRef::Int(-8_388_608));
    check(ColumnType::Int { unsigned: true }, "4294967295", ValueRef::UInt(4_294_967_295));
    check(ColumnType::BigInt { unsigned: false }, "-9223372036854775808", ValueRef::Int(i64::MIN));
    check(ColumnType::Year, "2155", ValueRef::Int(2155));
    check(ColumnType::Year, "0", ValueRef::Int(0));
    check(ColumnType::Year, "1900", ValueRef::Int(0));
    for (ty, cell) in [(SMALL, "128"), (SMALL, "1.5"), (SMALL, "\"1\""), (ColumnType::MediumInt { unsigned: true }, "16777216"), (ColumnType::Year, "1"), (SMALL, "[1]")] {
        refuse(ty, cell);
    }
}

#[test]
fn unsigned_64_bits_come_whole_in_every_mode() {
    let ty = ColumnType::BigInt { unsigned: true };
    check(ty.clone(), "-1", ValueRef::UInt(u64::MAX));
    check(ty.clone(), "18446744073709551615", ValueRef::UInt(u64::MAX));
    check(ty.clone(), "\"AP//////////\"", ValueRef::UInt(u64::MAX));
    check(ty.clone(), "\"AA==\"", ValueRef::UInt(0));
    check(ty.clone(), "\"AIAAAAAAAAAA\"", ValueRef::UInt(1 << 63));
    for cell in ["18446744073709551616", "\"/w==\"", "\"AQAAAAAAAAAA\"", "\"x\"", "true"] {
        refuse(ty.clone(), cell);
    }
}

#[test]
fn decimals_come_as_text_bytes_or_numbers() {
    check(DECIMAL, "\"12.5\"", ValueRef::Decimal("12.50"));
    check(DECIMAL, "\"-0.00\"", ValueRef::Decimal("0.00"));
    check(DECIMAL, "12.50", ValueRef::Decimal("12.50"));
    check(ColumnType::Decimal { precision: 65, scale: 30 }, "\"0E-30\"", ValueRef::Decimal("0.000000000000000000000000000000"));
    let bytes = Field { ty: "bytes".into(), name: Some("org.apache.kafka.connect.data.Decimal".into()), scale: Some(2) };
    let row = read(DECIMAL, Some(bytes), &Settings::default(), "\"+y4=\"").expect("a decimal");
    assert_eq!(row.get(0), ValueRef::Decimal("-12.34"));
    let precise = Settings { decimals: Decimals::Precise, ..Settings::default() };
    assert_eq!(read(DECIMAL, None, &precise, "\"BNI=\"").expect("a decimal").get(0), ValueRef::Decimal("12.34"));
    refuse(DECIMAL, "\"12.345\"");
    refuse(DECIMAL, "\"12345678901.00\"");
    refuse(DECIMAL, "\"NaN\"");
}

#[test]
fn a_double_for_more_digits_than_it_holds_is_refused() {
    let settings = Settings { decimals: Decimals::Double, ..Settings::default() };
    assert_eq!(read(DECIMAL, None, &settings, "12.5").expect("a decimal").get(0), ValueRef::Decimal("12.50"));
    let wide = ColumnType::Decimal { precision: 20, scale: 0 };
    assert!(read(wide, None, &settings, "12345678901234567000").expect_err("digits were lost").to_string().contains("decimal.handling.mode"));
}

#[test]
fn floats_are_the_floats_that_were_stored() {
    check(ColumnType::Float, "0.1", ValueRef::Float(0.1));
    check(ColumnType::Float, "0.10000000149011612", ValueRef::Float(0.1));
    check(ColumnType::Float, "1.6777216E7", ValueRef::Float(16_777_216.0));
    check(ColumnType::Double, "4.9E-324", ValueRef::Double(5e-324));
    check(ColumnType::Double, "1.7976931348623157E308", ValueRef::Double(f64::MAX));
    check(ColumnType::Double, "-0.0", ValueRef::Double(-0.0));
    refuse(ColumnType::Double, "1e999");
    refuse(ColumnType::Double, "\"NaN\"");
}

#[test]
fn bits_are_little_endian_bytes() {
    check(ColumnType::Bit(1), "true", ValueRef::UInt(1));
    check(ColumnType::Bit(1), "false", ValueRef::UInt(0));
    check(ColumnType::Bit(10), "\"AQI=\"", ValueRef::UInt(513));
    check(ColumnType::Bit(64), "\"//////////8=\"", ValueRef::UInt(u64::MAX));
    refuse(ColumnType::Bit(4), "\"EA==\"");
}

#[test]
fn dates_and_times_come_by_unit() {
    check(ColumnType::Date, "0", ValueRef::Date(Date { year: 1970, month: 1, day: 1 }));
    check(ColumnType::Date, "-719528", ValueRef::Date(Date { year: 0, month: 1, day: 1 }));
    check(ColumnType::Date, "2932896", ValueRef::Date(Date { year: 9999, month: 12, day: 31 }));
    check(ColumnType::Date, "11016", ValueRef::Date(Date { year: 2000, month: 2, day: 29 }));
    check(ColumnType::DateTime(0), "1529476623000", ValueRef::DateTime(at(2018, 6, 20, 6, 37, 3, 0)));
    check(ColumnType::DateTime(3), "-1", ValueRef::DateTime(at(1969, 12, 31, 23, 59, 59, 999_000)));
    check(ColumnType::DateTime(6), "253402300799999999", ValueRef::DateTime(at(9999, 12, 31, 23, 59, 59, 999_999)));
    check(ColumnType::Time(0), "-3020399000000", ValueRef::Time(-3_020_399_000_000));
    check(ColumnType::Time(6), "-1", ValueRef::Time(-1));
    check_as(ColumnType::DateTime(6), ("int64", "org.apache.kafka.connect.data.Timestamp"), "1000", ValueRef::DateTime(at(1970, 1, 1, 0, 0, 1, 0)));
    check_as(ColumnType::DateTime(0), ("int64", "io.debezium.time.MicroTimestamp"), "1000000", ValueRef::DateTime(at(1970, 1, 1, 0, 0, 1, 0)));
    check_as(ColumnType::DateTime(6), ("int64", "io.debezium.time.NanoTimestamp"), "1000", ValueRef::DateTime(at(1970, 1, 1, 0, 0, 0, 1)));
    check_as(ColumnType::Date, ("int32", "org.apache.kafka.connect.data.Date"), "1", ValueRef::Date(Date { year: 1970, month: 1, day: 2 }));
    check_as(ColumnType::Time(3), ("int32", "org.apache.kafka.connect.data.Time"), "1500", ValueRef::Time(1_500_000));
    check_as(ColumnType::Time(6), ("int64", "io.debezium.time.NanoTime"), "-1000", ValueRef::Time(-1));
    for (ty, cell) in [
        (ColumnType::Date, "2932897"),
        (ColumnType::Date, "\"soon\""),
        (ColumnType::DateTime(6), "9223372036854775807"),
        (ColumnType::DateTime(0), "9223372036854775807"),
        (ColumnType::Time(0), "3020399000001"),
    ] {
        refuse(ty, cell);
    }
}

#[test]
fn time_stamps_are_brought_to_utc() {
    let ty = ColumnType::Timestamp(6);
    check(ty.clone(), "\"2026-11-23T13:24:33Z\"", ValueRef::Timestamp(at(2026, 11, 23, 13, 24, 33, 0)));
    check(ty.clone(), "\"2038-01-19T03:14:07.999999Z\"", ValueRef::Timestamp(at(2038, 1, 19, 3, 14, 7, 999_999)));
    check(ty.clone(), "\"2024-03-01T00:30:00.5+02:00\"", ValueRef::Timestamp(at(2024, 2, 29, 22, 30, 0, 500_000)));
    // There is no TIMESTAMP at second 0: it is the zero timestamp of a column that is NOT NULL.
    check(ty.clone(), "\"1970-01-01T00:00:00Z\"", ValueRef::Timestamp(DateTime::default()));
    for cell in ["\"2026-11-23T13:24:33\"", "\"2026-11-23T25:24:33Z\"", "\"2026-11-23T13:24:33.1234567Z\"", "1795440273"] {
        refuse(ty.clone(), cell);
    }
}

#[test]
fn iso_texts_and_parts_are_read_too() {
    check(ColumnType::Date, "\"2024-02-29Z\"", ValueRef::Date(Date { year: 2024, month: 2, day: 29 }));
    check(ColumnType::DateTime(3), "\"2024-02-29T01:02:03.004Z\"", ValueRef::DateTime(at(2024, 2, 29, 1, 2, 3, 4_000)));
    check(ColumnType::Time(6), "\"10:11:12.000001Z\"", ValueRef::Time(36_672_000_001));
    check(ColumnType::Date, r#"{"year":2020,"month":0,"day":15,"special_value":null}"#, ValueRef::Date(Date { year: 2020, month: 0, day: 15 }));
    check(
        ColumnType::DateTime(6),
        r#"{"year":0,"month":0,"day":0,"hour":0,"minute":0,"second":0,"nanos":0}"#,
        ValueRef::DateTime(DateTime::default()),
    );
    refuse(ColumnType::Date, r#"{"year":2020,"month":13,"day":1}"#);
}

#[test]
fn texts_are_unescaped_and_kept() {
    check(ColumnType::VarChar(20), r#""é \"\\ \u00e9 \ud83d\ude00 \u0000 ""#, ValueRef::Text("é \"\\ é 😀 \0 "));
    check(ColumnType::Char(4), "\"ab  \"", ValueRef::Text("ab"));
    check(ColumnType::Text(2), "\"\"", ValueRef::Text(""));
    check(ColumnType::Enum(Arc::from(["a".to_owned()])), "\"a\"", ValueRef::Text("a"));
    check(ColumnType::Set(Arc::from([String::new(), "a".to_owned()])), "\",a\"", ValueRef::Text("a"));
    check(ColumnType::Set(Arc::from(["a".to_owned(), String::new()])), "\"a,\"", ValueRef::Text("a,"));
    check(ColumnType::Json, r#""{\"a\": 1.10}""#, ValueRef::Json(r#"{"a": 1.10}"#));
    refuse(ColumnType::VarChar(20), "\"secret \\ud800\"");
    refuse(ColumnType::VarChar(20), "12345");
    refuse(ColumnType::Json, "{}");
}

#[test]
fn bytes_are_decoded_and_padded() {
    check(ColumnType::Binary(4), "\"YQAA\"", ValueRef::Bytes(&[b'a', 0, 0, 0]));
    check(ColumnType::VarBinary(10), "\"YQ==\"", ValueRef::Bytes(b"a"));
    check(ColumnType::Blob(2), "\"-_8\"", ValueRef::Bytes(&[0xFB, 0xFF]));
    check(ColumnType::Blob(2), "\"\"", ValueRef::Bytes(b""));
    let hex = Settings { binaries: Binaries::Hex, ..Settings::default() };
    assert_eq!(read(ColumnType::Blob(2), None, &hex, "\"0aFF\"").expect("bytes").get(0), ValueRef::Bytes(&[0x0A, 0xFF]));
    let field = Field { ty: "bytes".into(), ..Field::default() };
    assert_eq!(read(ColumnType::Blob(2), Some(field), &hex, "\"Cv8=\"").expect("bytes").get(0), ValueRef::Bytes(&[0x0A, 0xFF]), "the schema comes first");
    assert!(read(ColumnType::Blob(2), None, &hex, "\"0aF\"").is_err());
    refuse(ColumnType::Binary(1), "\"YWE=\"");
    refuse(ColumnType::Blob(2), "\"no base64!\"");
}

#[test]
fn geometries_and_vectors_are_as_stored() {
    let point = r#"{"x":1.0,"y":2.0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":4326}"#;
    let mut stored = 4326_u32.to_le_bytes().to_vec();
    stored.extend([1, 1, 0, 0, 0]);
    stored.extend(1.0_f64.to_le_bytes());
    stored.extend(2.0_f64.to_le_bytes());
    check(ColumnType::Geometry("point".into()), point, ValueRef::Bytes(&stored));
    stored[..4].fill(0);
    check(ColumnType::Geometry("point".into()), &point.replace("4326", "null"), ValueRef::Bytes(&stored));
    let vector: Vec<u8> = [1.5_f32, -0.0, 0.1].iter().flat_map(|number| number.to_le_bytes()).collect();
    check(ColumnType::Vector(3), "[1.5, -0.0, 0.1]", ValueRef::Bytes(&vector));
    refuse(ColumnType::Vector(1), "[1,2]");
    refuse(ColumnType::Vector(1), "[1e99]");
    refuse(ColumnType::Geometry("point".into()), r#"{"srid":1}"#);
}

#[test]
fn null_and_what_is_not_there_are_two_things() {
    check(DECIMAL, "null", ValueRef::Null);
    check(ColumnType::Text(4), "\"__debezium_unavailable_value\"", ValueRef::Absent);
    check(ColumnType::Blob(4), "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"", ValueRef::Absent);
    check(ColumnType::Json, "\"__debezium_unavailable_value\"", ValueRef::Absent);
    let plan = Plan::new(table(vec![column("a", SMALL), column("b", SMALL), column("c", SMALL)]), None, &Settings::default());
    let read = plan.row(&mut Cells::default(), r#"{"c":3,"a":1}"#).expect("a row");
    assert_eq!(read.row.iter().collect::<Vec<_>>(), [ValueRef::Int(1), ValueRef::Absent, ValueRef::Int(3)]);
    assert!(!read.more_columns);
}

#[test]
fn columns_are_found_by_name_and_new_ones_are_told() {
    let plan = Plan::new(table(vec![column("id", SMALL), column("naïve", SMALL)]), None, &Settings::default());
    let read = plan.row(&mut Cells::default(), r#"{"na\u00efve":2,"other":{"deep":[1]},"id":1}"#).expect("a row");
    assert_eq!(read.row.iter().collect::<Vec<_>>(), [ValueRef::Int(1), ValueRef::Int(2)]);
    assert!(read.more_columns);
}

#[test]
fn a_column_twice_is_refused_and_no_row_is_not_a_row() {
    let plan = Plan::new(table(vec![column("id", SMALL), column("n", SMALL)]), None, &Settings::default());
    let mut cells = Cells::default();
    assert_eq!(plan.row(&mut cells, r#"{"id":1,"n":2,"id":3}"#).err(), Some(Misfit::Twice("id".into())));
    assert_eq!(plan.row(&mut cells, "[1]").err(), Some(Misfit::NoObject));
    assert_eq!(plan.row(&mut cells, "5").err(), Some(Misfit::NoObject));
    assert_eq!(plan.row(&mut cells, r#"{"\ud800":1}"#).err(), Some(Misfit::NoObject));
    // What was half written does not show in the next row.
    assert!(plan.row(&mut cells, r#"{"id":1,"n":"x"}"#).is_err());
    assert_eq!(plan.row(&mut cells, r#"{"id":1,"n":2}"#).expect("a row").row.get(1), ValueRef::Int(2));
}

#[test]
fn deep_cells_never_end_the_process() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for ty in [SMALL, ColumnType::Json, ColumnType::Vector(3), ColumnType::Geometry("point".into()), ColumnType::Date, DECIMAL, ColumnType::Blob(1)] {
        assert!(read(ty, None, &Settings::default(), &deep).is_err());
    }
    let object = format!("{}1{}", "{\"wkb\":".repeat(10_000), "}".repeat(10_000));
    assert!(read(ColumnType::Geometry("point".into()), None, &Settings::default(), &object).is_err());
}

/// What a copy reads of MySQL as text and what the connector sends of the same cell are one value.
#[test]
fn records_and_mysqls_own_text_agree() {
    let cases = [
        (ColumnType::BigInt { unsigned: true }, "18446744073709551615", "-1"),
        (DECIMAL, "-12.50", "\"-12.50\""),
        (ColumnType::Date, "2024-02-29", "19782"),
        (ColumnType::DateTime(6), "2024-02-29 01:02:03.000004", "1709168523000004"),
        (ColumnType::Timestamp(3), "2024-02-29 01:02:03.004", "\"2024-02-29T01:02:03.004Z\""),
        (ColumnType::Time(6), "-00:00:00.500000", "-500000"),
        (ColumnType::Year, "2024", "2024"),
        (ColumnType::Bit(10), "513", "\"AQI=\""),
        (ColumnType::VarChar(5), "é ", "\"é \""),
    ];
    for (ty, text, cell) in cases {
        let mut scratch = Vec::new();
        let expected = value_of_source_text(&ty, text.as_bytes(), &mut scratch).expect("MySQL's text");
        check(ty, cell, expected);
    }
}
