//! Table tests over all pairs of types: what equals, what differs, what is not compared.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::value::{Date, DateTime};

fn column(ty: ColumnType) -> Column {
    Column { name: "c".into(), ty, nullable: true, key_ordinal: None, generated: false, charset: None }
}

fn target(ty: &str) -> TargetColumn {
    let base = ty.split('(').next().unwrap_or(ty);
    TargetColumn { name: "c".into(), ty: ty.into(), base: base.into(), nullable: true, generated: false }
}

fn rule(ty: ColumnType, pg: &str) -> Rule {
    Rule::new(&column(ty.clone()), &target(pg)).unwrap_or_else(|reason| panic!("{ty} {pg}: {reason}"))
}

fn labels(labels: &[&str]) -> Arc<[String]> {
    labels.iter().map(|&label| label.to_owned()).collect()
}

fn int() -> ColumnType {
    ColumnType::Int { unsigned: false }
}

fn tiny() -> ColumnType {
    ColumnType::TinyInt { unsigned: false, boolean: true }
}

fn decimal() -> ColumnType {
    ColumnType::Decimal { precision: 65, scale: 30 }
}

/// Whether the cells of both sides are one value; checked also by way of the stream's value, and the fast path must not contradict.
fn same(ty: &ColumnType, pg: &str, source: &[u8], cell: &[u8]) -> bool {
    let rule = rule(ty.clone(), pg);
    let (mut a, mut b, mut stream) = (Vec::new(), Vec::new(), Vec::new());
    rule.source_text(source, &mut a).unwrap_or_else(|error| panic!("{ty} {source:?}: {error}"));
    rule.target_text(cell, &mut b).unwrap_or_else(|error| panic!("{pg} {cell:?}: {error}"));
    let mut scratch = Vec::new();
    let value = value_of_source_text(ty, source, &mut scratch).unwrap_or_else(|error| panic!("{ty} {source:?}: {error}"));
    rule.value(value, &mut stream).unwrap_or_else(|error| panic!("{ty} {value:?}: {error}"));
    assert_eq!(a, stream, "{ty}: text and stream differ for {:?}", String::from_utf8_lossy(source));
    if rule.raw_equal() && source == cell {
        assert_eq!(a, b, "{ty} against {pg}: raw text is equal, the value is not: {:?}", String::from_utf8_lossy(cell));
    }
    a == b
}

fn equal(ty: ColumnType, pg: &str, cells: &[(&str, &str)]) {
    for (source, cell) in cells {
        assert!(same(&ty, pg, source.as_bytes(), cell.as_bytes()), "{ty} {source} must equal {pg} {cell}");
    }
}

fn differ(ty: ColumnType, pg: &str, cells: &[(&str, &str)]) {
    for (source, cell) in cells {
        assert!(!same(&ty, pg, source.as_bytes(), cell.as_bytes()), "{ty} {source} must differ from {pg} {cell}");
    }
}

#[test]
fn integers() {
    for pg in ["int2", "int4", "int8", "numeric"] {
        equal(int(), pg, &[("0", "0"), ("-2147483648", "-2147483648"), ("00000042", "42"), ("7", "7")]);
        differ(int(), pg, &[("1", "-1"), ("1", "10"), ("1", "2"), ("0", "")]);
    }
    let unsigned = || ColumnType::BigInt { unsigned: true };
    equal(unsigned(), "numeric", &[("18446744073709551615", "18446744073709551615"), ("5", "5.00"), ("100", "100")]);
    differ(unsigned(), "numeric", &[("18446744073709551615", "18446744073709551614"), ("5", "5.01"), ("5", "NaN"), ("5", "Infinity")]);
    differ(unsigned(), "int8", &[("18446744073709551615", "-1")]);
}

#[test]
fn booleans() {
    equal(tiny(), "bool", &[("1", "t"), ("0", "f"), ("1", "true"), ("0", "false"), ("2", "t"), ("-1", "t")]);
    differ(tiny(), "bool", &[("1", "f"), ("0", "t"), ("2", "f")]);
    equal(tiny(), "int2", &[("1", "1"), ("-1", "-1")]);
    differ(tiny(), "int2", &[("2", "1")]);
}

#[test]
fn bits() {
    equal(ColumnType::Bit(1), "bool", &[("1", "t"), ("0", "f")]);
    differ(ColumnType::Bit(8), "bool", &[("2", "t")]);
    equal(ColumnType::Bit(10), "bit(10)", &[("513", "1000000001"), ("0", "0000000000"), ("1", "0000000001")]);
    equal(ColumnType::Bit(10), "varbit", &[("513", "1000000001"), ("5", "101"), ("5", "0000000101")]);
    differ(ColumnType::Bit(10), "bit(10)", &[("10", "10"), ("513", "1000000011")]);
    equal(ColumnType::Bit(64), "numeric", &[("18446744073709551615", "18446744073709551615")]);
    differ(ColumnType::Bit(64), "int8", &[("513", "-9205357638345293824")]);
    let ones = "1".repeat(64);
    equal(ColumnType::Bit(64), "bit(64)", &[("18446744073709551615", &ones)]);
    differ(ColumnType::Bit(64), "varbit", &[("18446744073709551615", &format!("1{ones}")), ("0", "")]);
    equal(ColumnType::Bit(10), "bytea", &[("513", "0201"), ("0", "0000")]);
    differ(ColumnType::Bit(10), "bytea", &[("513", "0102"), ("1", "01"), ("0", "")]);
}

#[test]
fn decimals() {
    equal(decimal(), "numeric", &[("12.50", "12.5"), ("00000042.50", "42.50"), ("100", "100"), ("100.00", "100"), ("-0.00", "0"), ("0.000", "0.0"), ("-1.10", "-1.1")]);
    let max = format!("{}.{}", "9".repeat(35), "9".repeat(30));
    equal(decimal(), "numeric", &[(&max, &max)]);
    differ(decimal(), "numeric", &[("1.50", "1.51"), ("100", "1"), ("1", "-1"), ("0", "NaN"), ("0.1", "Infinity"), (&max, &max[..max.len() - 1])]);
    equal(decimal(), "float8", &[("0.10", "0.1"), ("12345678901234567890.123", "1.2345678901234567e+19"), ("0.00", "-0")]);
    differ(decimal(), "float8", &[("0.10", "0.10000000000000002"), ("1", "NaN")]);
    equal(ColumnType::Decimal { precision: 5, scale: 0 }, "int4", &[("100", "100")]);
}

#[test]
fn floats() {
    // The source prints FLOAT as a double.
    equal(ColumnType::Float, "float4", &[("0.10000000149011612", "0.1"), ("16777216", "1.6777216e+07"), ("-0", "0"), ("0", "-0"), ("1.401298464324817e-45", "1e-45")]);
    equal(ColumnType::Float, "float8", &[("0.10000000149011612", "0.1"), ("0.10000000149011612", "0.10000000149011612")]);
    equal(ColumnType::Float, "numeric", &[("0.10000000149011612", "0.1")]);
    differ(ColumnType::Float, "float4", &[("0.10000000149011612", "0.10000001"), ("1", "NaN"), ("1", "Infinity"), ("1", "-Infinity")]);
    differ(ColumnType::Float, "float8", &[("1", "1e+300"), ("0.10000000149011612", "0.1000001")]);
    equal(ColumnType::Double, "float8", &[("1e15", "1e+15"), ("0.00001", "1e-05"), ("-0", "0"), ("5e-324", "5e-324"), ("1.7976931348623157e308", "1.7976931348623157e+308")]);
    differ(ColumnType::Double, "float8", &[("0.1", "0.10000000000000002"), ("0.30000000000000004", "0.3"), ("0", "NaN"), ("0", "Infinity"), ("1", "-1")]);
    equal(ColumnType::Double, "float4", &[("0.5", "0.5")]);
    differ(ColumnType::Double, "float4", &[("0.1", "0.1"), ("1e300", "Infinity")]);
    equal(ColumnType::Double, "numeric", &[("1e15", "1000000000000000"), ("0.1", "0.10")]);
    differ(ColumnType::Double, "numeric", &[("1e15", "NaN")]);
}

#[test]
fn years() {
    equal(ColumnType::Year, "int4", &[("0000", "0"), ("2024", "2024"), ("1901", "1901")]);
    differ(ColumnType::Year, "int2", &[("0000", "1900"), ("0000", "2000")]);
}

#[test]
fn dates() {
    equal(ColumnType::Date, "date", &[("2020-02-29", "2020-02-29"), ("9999-12-31", "9999-12-31"), ("0000-01-01", "0001-01-01 BC")]);
    differ(
        ColumnType::Date,
        "date",
        &[
            ("2020-02-29", "2020-03-01"),
            ("0001-01-01", "0001-01-01 BC"),
            ("0044-03-15", "0044-03-15 BC"),
            ("0000-03-15", "0044-03-15 BC"),
            ("9999-12-31", "infinity"),
            ("0000-00-00", "-infinity"),
            ("0000-00-00", "1970-01-01"),
            ("2020-00-15", "2020-01-15"),
            ("9999-12-31", "99999-12-31"),
        ],
    );
    equal(ColumnType::Date, "timestamp", &[("2020-02-29", "2020-02-29 00:00:00"), ("0000-01-01", "0001-01-01 00:00:00 BC")]);
    differ(ColumnType::Date, "timestamp", &[("2020-02-29", "2020-02-29 00:00:00.000001"), ("2020-02-29", "2020-02-29 12:00:00")]);
}

#[test]
fn time_stamps() {
    for ty in [ColumnType::DateTime(6), ColumnType::Timestamp(6)] {
        for pg in ["timestamp(6)", "timestamptz"] {
            equal(
                ty.clone(),
                pg,
                &[
                    ("2020-02-29 12:34:56.789000", "2020-02-29 12:34:56.789"),
                    ("2020-02-29 12:34:56", "2020-02-29 12:34:56"),
                    ("2020-02-29 12:34:56", "2020-02-29 12:34:56+00"),
                    ("9999-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"),
                    ("2038-01-19 03:14:07.5", "2038-01-19 03:14:07.50"),
                ],
            );
            differ(
                ty.clone(),
                pg,
                &[
                    ("2020-02-29 12:34:56.789000", "2020-02-29 12:34:56.789001"),
                    ("2020-02-29 12:34:56", "2020-02-29 13:34:56"),
                    ("2020-02-29 12:34:56", "2020-02-29 12:34:56+02"),
                    ("2020-02-29 12:34:56", "2020-02-29 12:34:56 BC"),
                    ("0000-00-00 00:00:00", "infinity"),
                    ("0000-00-00 00:00:00", "1970-01-01 00:00:00"),
                ],
            );
        }
    }
    equal(ColumnType::DateTime(0), "date", &[("2020-02-29 00:00:00", "2020-02-29")]);
    differ(ColumnType::DateTime(0), "date", &[("2020-02-29 00:00:01", "2020-02-29")]);
}

#[test]
fn times() {
    let ty = || ColumnType::Time(6);
    equal(ty(), "time", &[("12:34:56.789000", "12:34:56.789"), ("24:00:00", "24:00:00"), ("00:00:00.000000", "00:00:00")]);
    differ(ty(), "time", &[("12:34:56.000001", "12:34:56"), ("-00:00:00.500000", "00:00:00.5")]);
    equal(
        ty(),
        "interval",
        &[
            ("838:59:59.000000", "838:59:59"),
            ("-838:59:59.000000", "-838:59:59"),
            ("24:00:00", "1 day"),
            ("26:03:04.5", "1 day 02:03:04.5"),
            ("-00:00:00.000001", "-00:00:00.000001"),
            ("-22:00:00", "-1 days +02:00:00"),
            ("720:00:00", "1 mon"),
        ],
    );
    differ(ty(), "interval", &[("24:00:00", "1 day 00:00:00.000001"), ("00:00:00", ""), ("00:00:00", "1 fortnight"), ("01:00:00", "01:00:00 1")]);
    equal(ty(), "int8", &[("-00:00:00.500000", "-500000"), ("00:00:01", "1000000")]);
    differ(ty(), "int8", &[("00:00:01", "1")]);
}

#[test]
fn texts() {
    for ty in [ColumnType::VarChar(10), ColumnType::Text(2), ColumnType::Char(10)] {
        for pg in ["text", "varchar", "citext"] {
            equal(ty.clone(), pg, &[("é", "é"), ("", ""), ("a\0", "a\0")]);
            differ(ty.clone(), pg, &[("a", "A"), ("a", "a "), ("e", "é"), ("", " "), ("é", "e\u{301}"), ("a\0", "a")]);
        }
    }
    differ(ColumnType::VarChar(10), "text", &[("a ", "a")]);
    equal(ColumnType::Char(5), "bpchar", &[("ab", "ab   "), ("ab", "ab"), ("", "     ")]);
    differ(ColumnType::Char(5), "bpchar", &[("ab", "aB   "), (" ab", "ab  ")]);
    differ(ColumnType::VarChar(5), "bpchar", &[("ab ", "ab   "), ("ab ", "ab ")]);
    equal(ColumnType::VarChar(5), "bpchar", &[("ab", "ab   ")]);
}

#[test]
fn uuids() {
    let uuid = "6ccd780c-baba-1026-9564-5b8c656024db";
    equal(ColumnType::Char(36), "uuid", &[(uuid, uuid), (&uuid.to_uppercase(), uuid), (&uuid.replace('-', ""), uuid)]);
    differ(ColumnType::Char(36), "uuid", &[("", uuid), (&uuid[..35], uuid), (&format!("{uuid}0"), uuid), (&uuid.replace('6', "7"), uuid), (&uuid.replace('-', "x"), uuid)]);
    let bytes = [0x6c, 0xcd, 0x78, 0x0c, 0xba, 0xba, 0x10, 0x26, 0x95, 0x64, 0x5b, 0x8c, 0x65, 0x60, 0x24, 0xdb];
    assert!(same(&ColumnType::Binary(16), "uuid", &bytes, uuid.as_bytes()));
    assert!(!same(&ColumnType::Binary(16), "uuid", &bytes[..15], uuid.as_bytes()));
}

#[test]
fn binaries() {
    for ty in [ColumnType::Binary(3), ColumnType::VarBinary(9), ColumnType::Blob(2)] {
        for (source, cell, expected) in [
            (&b"\x00\xffA"[..], "00ff41", true),
            (b"\x00\xffA", "00FF41", true),
            (b"", "", true),
            (b"A", "4100", false),
            (b"41", "41", false),
            (b"A", "a", false),
        ] {
            let rule = rule(ty.clone(), "bytea");
            let (mut a, mut b) = (Vec::new(), Vec::new());
            let read = rule.source_text(source, &mut a).and_then(|()| rule.target_text(cell.as_bytes(), &mut b)).is_ok();
            assert_eq!(read && a == b, expected, "{ty} {source:?} {cell}");
            assert!(!rule.raw_equal());
        }
    }
}

#[test]
fn labels_of_enum_and_set() {
    let ty = ColumnType::Enum(labels(&["a", "b c"]));
    for pg in ["text", "varchar", "enum"] {
        equal(ty.clone(), pg, &[("a", "a"), ("b c", "b c"), ("", "")]);
        differ(ty.clone(), pg, &[("a", "A"), ("", "a"), ("a", "b c")]);
    }
    let ty = ColumnType::Set(labels(&["a", "b c", "{}", "q\"\\"]));
    equal(ty.clone(), "text", &[("a,b c", "a,b c"), ("", "")]);
    differ(ty.clone(), "text", &[("a,b c", "b c,a")]);
    for pg in ["_text", "_enum", "_varchar"] {
        equal(ty.clone(), pg, &[("a,b c", "{a,\"b c\"}"), ("", "{}"), ("a", "{a}"), ("{}", "{\"{}\"}"), ("q\"\\", r#"{"q\"\\"}"#)]);
        differ(ty.clone(), pg, &[("a", "{}"), ("{}", "{}"), ("a,b c", "{\"b c\",a}"), ("a,b c", "{\"a,b c\"}"), ("", "{NULL}"), ("", "{\"\"x}"), ("a", "{{a}}"), ("a", "{a")]);
    }
}

#[test]
fn json_by_value() {
    for pg in ["json", "jsonb", "text"] {
        equal(
            ColumnType::Json,
            pg,
            &[
                (r#"{"a": 1, "b": [1, 2.5, "x"]}"#, r#"{"b":[1,2.50,"x"],"a":1}"#),
                (r#"{"a": 2}"#, r#"{"a": 1, "a": 2}"#),
                ("100.0", "1e2"),
                ("100.0", "100"),
                ("1.10", "1.1"),
                ("-0.0", "0"),
                ("1.8446744073709552e19", "18446744073709551616"),
                ("3.141592653589793", "3.14159265358979323846"),
                ("9007199254740993", "9007199254740993"),
                ("0.1", "0.10000000000000001"),
                (r#""é\u0000\n/""#, r#""\u00e9\u0000\u000a\/""#),
                (r#""😀""#, r#""\ud83d\ude00""#),
                ("null", " null "),
                ("[]", "[ ]"),
                ("{}", "{\n}"),
                (r#"{"": 1, "aa": 2, "b": 3}"#, r#"{"b": 3, "aa": 2, "": 1}"#),
                ("1e300", "1e+300"),
            ],
        );
        differ(
            ColumnType::Json,
            pg,
            &[
                ("1", "2"),
                ("1", "\"1\""),
                ("9007199254740993", "9007199254740992"),
                ("18446744073709551615", "18446744073709551614"),
                ("0.1", "0.11"),
                ("0.1", "0.10000000000000002"),
                (r#"{"a": 1}"#, r#"{"A": 1}"#),
                (r#"{"a": 1}"#, r#"{"a": 1, "b": null}"#),
                ("[1, 2]", "[2, 1]"),
                (r#"["a,b"]"#, r#"["a","b"]"#),
                (r#"["\""]"#, r#"["\\"]"#),
                ("null", "false"),
                ("null", ""),
                ("1", "1e400"),
                ("1", "1 2"),
                ("\"a\"", "\"a"),
                ("\"a\"", "\"\\ud800\""),
            ],
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    differ(ColumnType::Json, "json", &[("[]", &deep)]);
}

#[test]
fn what_is_not_compared_says_why() {
    let check = |ty: ColumnType, pg: &str, expected: &str| {
        assert_eq!(Rule::new(&column(ty), &target(pg)).err().as_deref(), Some(expected));
    };
    check(ColumnType::Geometry("geometry".into()), "geometry", "type `geometry` is not compared");
    check(ColumnType::Vector(3), "vector", "type `vector` is not compared");
    check(ColumnType::Other("inet6".into()), "inet", "type `inet6` is not compared");
    check(int(), "text", "`int` against `text` is not compared");
    check(ColumnType::BigInt { unsigned: true }, "bool", "`bigint unsigned` against `bool` is not compared");
    check(decimal(), "float4", "`decimal` against `float4` is not compared");
    check(ColumnType::Enum(labels(&["a"])), "int4", "`enum` against `int4` is not compared");
    check(ColumnType::VarChar(9), "bytea", "`varchar` against `bytea` is not compared");
    check(tiny(), "uuid", "`tinyint` against `uuid` is not compared");
}

#[test]
fn keys_go_back_to_their_side() {
    let check = |ty: ColumnType, pg: &str, source: &[u8], expected: (&str, &str, &str)| {
        let rule = rule(ty, pg);
        let mut canonical = Vec::new();
        rule.source_text(source, &mut canonical).expect("a source cell");
        let text = |key: Result<Vec<u8>>| String::from_utf8(key.expect("a key")).expect("text");
        let mut again = Vec::new();
        rule.canonical_of_key(&rule.key_for_source(&canonical).expect("a key"), &mut again).expect("a key cell");
        assert_eq!(again, canonical, "{expected:?}");
        let found = (text(rule.key_for_source(&canonical)), text(rule.key_for_target(&canonical)), rule.key_text(&canonical));
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), expected);
    };
    check(int(), "int8", b"007", ("7", "7", "7"));
    check(tiny(), "bool", b"1", ("1", "t", "1"));
    check(tiny(), "bool", b"0", ("0", "f", "0"));
    check(ColumnType::Bit(10), "bit(10)", b"513", ("513", "1000000001", "513"));
    check(ColumnType::Bit(10), "bit(12)", b"5", ("5", "000000000101", "5"));
    check(ColumnType::Bit(10), "varbit", b"5", ("5", "0000000101", "5"));
    check(ColumnType::Bit(10), "bytea", b"513", ("513", "0201", "513"));
    check(ColumnType::Bit(1), "bool", b"1", ("1", "t", "1"));
    check(decimal(), "numeric", b"-12.50", ("-12.5", "-12.5", "-12.5"));
    check(ColumnType::Double, "float8", b"1e300", ("1e300", "1e300", "1e300"));
    check(ColumnType::Float, "float4", b"0.10000000149011612", ("0.10000000149011612", "0.10000000149011612", "0.10000000149011612"));
    check(ColumnType::Year, "int4", b"0000", ("0", "0", "0"));
    check(ColumnType::Date, "date", b"2020-02-29", ("2020-02-29", "2020-02-29", "2020-02-29"));
    check(ColumnType::Date, "date", b"0000-05-06", ("0000-05-06", "0001-05-06 BC", "0000-05-06"));
    check(ColumnType::DateTime(3), "timestamp", b"2020-02-29 01:02:03.000", ("2020-02-29 01:02:03.000000", "2020-02-29 01:02:03.000000", "2020-02-29 01:02:03"));
    check(ColumnType::Timestamp(3), "timestamptz", b"2020-02-29 01:02:03.100", ("2020-02-29 01:02:03.100000", "2020-02-29 01:02:03.100000+00", "2020-02-29 01:02:03.100000"));
    check(ColumnType::Time(0), "time", b"-01:02:03", ("-01:02:03.000000", "-01:02:03.000000", "-01:02:03"));
    check(ColumnType::VarChar(9), "text", "é ".as_bytes(), ("é ", "é ", "é "));
    check(ColumnType::Binary(3), "bytea", b"\x00\xffA", ("00FF41", "00FF41", "0x00ff41"));
    check(ColumnType::Binary(16), "uuid", &[0xAB; 16], ("ABABABABABABABABABABABABABABABAB", "abababab-abab-abab-abab-abababababab", "abababab-abab-abab-abab-abababababab"));
    check(ColumnType::Char(36), "uuid", "AB".repeat(16).as_bytes(), ("abababab-abab-abab-abab-abababababab", "abababab-abab-abab-abab-abababababab", "abababab-abab-abab-abab-abababababab"));
    check(ColumnType::Char(32), "uuid", "AB".repeat(16).as_bytes(), (&"ab".repeat(16), "abababab-abab-abab-abab-abababababab", "abababab-abab-abab-abab-abababababab"));
    check(ColumnType::Enum(labels(&["a"])), "enum", b"a", ("a", "a", "a"));
    check(ColumnType::Set(labels(&["a", "b\""])), "_text", b"a,b\"", ("a,b\"", r#"{"a","b\""}"#, "a,b\""));
}

#[test]
fn a_key_that_only_the_target_has_goes_back_to_the_target_as_it_came() {
    for (ty, pg, cell) in [
        (ColumnType::Date, "date", "infinity"),
        (ColumnType::DateTime(0), "timestamp", "0044-03-15 00:00:00 BC"),
        (ColumnType::BigInt { unsigned: true }, "numeric", "NaN"),
        (ColumnType::Time(0), "interval", "1 fortnight"),
    ] {
        let rule = rule(ty, pg);
        let mut canonical = Vec::new();
        rule.target_text(cell.as_bytes(), &mut canonical).expect("a foreign form");
        assert_eq!(rule.key_for_target(&canonical).expect("a key"), cell.as_bytes());
        assert_eq!(rule.key_text(&canonical), cell);
        assert!(rule.key_for_source(&canonical).is_err(), "the source has no {cell}");
    }
}

#[test]
fn a_character_that_may_stand_for_a_lost_byte_is_not_judged() {
    let mut column = column(ColumnType::VarChar(9));
    column.charset = Some("cp1251".into());
    let rule = Rule::new(&column, &target("text")).expect("a rule");
    assert!(!rule.raw_equal());
    assert!(rule.source_text(b"a?", &mut Vec::new()).is_err());
    assert!(rule.source_text("aя".as_bytes(), &mut Vec::new()).is_ok());
    column.charset = Some("tis620".into());
    assert!(Rule::new(&column, &target("text")).is_err());
}

#[test]
fn null_and_absent_and_values_of_other_types_are_errors() {
    let rule = rule(int(), "int4");
    for value in [ValueRef::Null, ValueRef::Absent, ValueRef::Text("1"), ValueRef::Double(1.0)] {
        assert!(rule.value(value, &mut Vec::new()).is_err(), "{value:?}");
    }
}

#[test]
fn canonical_forms_are_ordered_as_both_sides_sort() {
    let check = |ty: ColumnType, pg: &str, ascending: &[&str]| {
        let rule = rule(ty, pg);
        assert!(rule.ordered());
        let forms: Vec<Vec<u8>> = ascending
            .iter()
            .map(|cell| {
                let mut out = Vec::new();
                rule.target_text(cell.as_bytes(), &mut out).expect("a cell");
                out
            })
            .collect();
        for (i, a) in forms.iter().enumerate() {
            for (j, b) in forms.iter().enumerate() {
                assert_eq!(rule.compare(a, b), i.cmp(&j), "{} {}", ascending[i], ascending[j]);
            }
        }
    };
    check(int(), "numeric", &["-Infinity", "-100", "-99", "-9", "-0.5", "0", "0.25", "0.3", "2", "10", "10.01", "100", "NaN"]);
    check(ColumnType::Date, "date", &["0001-05-06 BC", "0001-01-01", "2020-01-01", "2020-02-01", "infinity"]);
    check(ColumnType::DateTime(6), "timestamp", &["1999-01-01 00:00:00", "1999-01-01 00:00:00.000001", "2000-01-01 00:00:00"]);
    check(ColumnType::Time(6), "interval", &["-838:59:59", "-00:00:00.5", "00:00:00", "00:00:09", "1 day"]);
    check(ColumnType::VarBinary(9), "bytea", &["", "00", "0000", "01", "7f", "80", "ff"]);
}

/// Every type with the target types that it is compared with.
fn all_pairs() -> Vec<(ColumnType, &'static [&'static str])> {
    let integer: &[&str] = &["int2", "int4", "int8", "numeric"];
    let text: &[&str] = &["text", "varchar", "bpchar", "citext", "uuid"];
    let bytes: &[&str] = &["bytea", "uuid"];
    let label: &[&str] = &["text", "varchar", "bpchar", "citext"];
    vec![
        (tiny(), &["bool", "int2"]),
        (ColumnType::TinyInt { unsigned: true, boolean: false }, &["bool", "int2"]),
        (ColumnType::SmallInt { unsigned: false }, integer),
        (ColumnType::MediumInt { unsigned: true }, integer),
        (int(), integer),
        (ColumnType::BigInt { unsigned: false }, integer),
        (ColumnType::BigInt { unsigned: true }, integer),
        (decimal(), &["numeric", "float8", "int8"]),
        (ColumnType::Float, &["float4", "float8", "numeric"]),
        (ColumnType::Double, &["float4", "float8", "numeric"]),
        (ColumnType::Bit(1), &["bool", "bit(1)", "int2"]),
        (ColumnType::Bit(13), &["bit(13)", "varbit", "bytea", "int4", "numeric"]),
        (ColumnType::Bit(64), &["bit(64)", "varbit", "bytea", "numeric"]),
        (ColumnType::Year, &["int2", "int4"]),
        (ColumnType::Date, &["date", "timestamp"]),
        (ColumnType::DateTime(6), &["timestamp", "timestamptz", "date"]),
        (ColumnType::Timestamp(6), &["timestamp", "timestamptz"]),
        (ColumnType::Time(6), &["time", "interval", "int8"]),
        (ColumnType::Char(40), text),
        (ColumnType::VarChar(40), text),
        (ColumnType::Text(2), text),
        (ColumnType::Binary(16), bytes),
        (ColumnType::VarBinary(16), bytes),
        (ColumnType::Blob(2), bytes),
        (ColumnType::Enum(labels(&["a", "b"])), label),
        (ColumnType::Enum(labels(&["a", "b"])), &["enum"]),
        (ColumnType::Set(labels(&["a", "b"])), label),
        (ColumnType::Set(labels(&["a", "b"])), &["_text", "_varchar", "_enum"]),
        (ColumnType::Json, &["json", "jsonb", "text"]),
    ]
}

#[test]
fn no_text_makes_a_parser_panic() {
    let mut random = StdRng::seed_from_u64(1);
    let alphabet = b"0123456789-+.:, eE{}[]\"\\ntfu/BCNaNinfity day mons\xff\x00\xc3\xa9";
    let mut scratch = Vec::new();
    for (ty, targets) in all_pairs() {
        for pg in targets {
            let rule = rule(ty.clone(), pg);
            for _ in 0..3000 {
                let text: Vec<u8> = (0..random.random_range(0..40)).map(|_| alphabet[random.random_range(0..alphabet.len())]).collect();
                let (mut a, mut b) = (Vec::new(), Vec::new());
                let source = rule.source_text(&text, &mut a).is_ok();
                let target = rule.target_text(&text, &mut b).is_ok();
                let _ = value_of_source_text(&ty, &text, &mut scratch);
                for canonical in [&a, &b, &text] {
                    let _ = (rule.key_for_source(canonical), rule.key_for_target(canonical), rule.key_text(canonical), rule.compare(canonical, &text));
                }
                // MySQL prints no space at the end of a CHAR or a label.
                let printable = !matches!(ty, ColumnType::Char(_) | ColumnType::Enum(_) | ColumnType::Set(_)) || !text.ends_with(b" ");
                if printable && source && target && rule.raw_equal() {
                    assert_eq!(a, b, "{ty} against {pg}: {:?}", String::from_utf8_lossy(&text));
                }
            }
        }
    }
}

#[test]
fn no_foreign_form_is_a_value_of_the_source() {
    let foreign = ["NaN", "Infinity", "-Infinity", "infinity", "-infinity", "", "x", "{", "0044-03-15 BC", "294276-12-31 23:59:59", "4714-11-24 00:00:00 BC"];
    for (ty, targets) in all_pairs() {
        for pg in targets {
            let rule = rule(ty.clone(), pg);
            if matches!(rule.form, Form::Text | Form::Uuid | Form::Bytes) {
                continue;
            }
            for cell in foreign {
                let mut out = Vec::new();
                if rule.target_text(cell.as_bytes(), &mut out).is_ok() && !(rule.read == Read::Array) {
                    assert_eq!(out.first(), Some(&FOREIGN), "{ty} against {pg}: {cell}");
                }
            }
        }
    }
}

/// A random value of the type, and the text that MySQL prints for it under the rule's select expression.
fn random_value(ty: &ColumnType, random: &mut StdRng, text: &mut Vec<u8>) -> Owned {
    let date = |random: &mut StdRng| match random.random_range(0..10) {
        0 => Date::default(),
        _ => Date { year: random.random_range(0..10_000), month: random.random_range(0..13), day: random.random_range(0..32) },
    };
    let at = |random: &mut StdRng| DateTime {
        date: date(random),
        hour: random.random_range(0..24),
        minute: random.random_range(0..60),
        second: random.random_range(0..60),
        micros: random.random_range(0..1_000_000),
    };
    let print_date = |date: Date| format!("{:04}-{:02}-{:02}", date.year, date.month, date.day);
    let print = |at: DateTime| format!("{} {:02}:{:02}:{:02}.{:06}", print_date(at.date), at.hour, at.minute, at.second, at.micros);
    let (value, printed) = match ty {
        ColumnType::BigInt { unsigned: true } | ColumnType::MediumInt { .. } | ColumnType::Bit(_) | ColumnType::TinyInt { unsigned: true, .. } => {
            let value = random.random::<u64>() >> random.random_range(0..64);
            (Owned::UInt(value), value.to_string().into_bytes())
        }
        ColumnType::TinyInt { .. } | ColumnType::SmallInt { .. } | ColumnType::Int { .. } | ColumnType::BigInt { .. } => {
            let value = random.random::<i64>() >> random.random_range(0..64);
            (Owned::Int(value), value.to_string().into_bytes())
        }
        ColumnType::Year => {
            let value = random.random_range(0..2156);
            (Owned::Int(value), format!("{value:04}").into_bytes())
        }
        ColumnType::Decimal { .. } => {
            let value = format!("{}.{:05}", random.random::<i64>() >> random.random_range(0..63), random.random_range(0..100_000));
            (Owned::Decimal(value.clone()), value.into_bytes())
        }
        ColumnType::Float => {
            let value = Some(f32::from_bits(random.random())).filter(|value| value.is_finite()).unwrap_or(-0.0);
            (Owned::Float(value), format!("{:e}", f64::from(value)).into_bytes())
        }
        ColumnType::Double => {
            let value = Some(f64::from_bits(random.random())).filter(|value| value.is_finite()).unwrap_or(-0.0);
            (Owned::Double(value), format!("{value:e}").into_bytes())
        }
        ColumnType::Date => {
            let value = date(random);
            (Owned::Date(value), print_date(value).into_bytes())
        }
        ColumnType::DateTime(_) => {
            let value = at(random);
            (Owned::DateTime(value), print(value).into_bytes())
        }
        ColumnType::Timestamp(_) => {
            let value = at(random);
            (Owned::Timestamp(value), print(value).into_bytes())
        }
        ColumnType::Time(_) => {
            let value = random.random_range(-3_020_399_000_000_i64..=3_020_399_000_000) >> random.random_range(0..40);
            let abs = value.unsigned_abs();
            let (seconds, micros) = (abs / 1_000_000, abs % 1_000_000);
            let sign = if value < 0 { "-" } else { "" };
            (Owned::Time(value), format!("{sign}{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60).into_bytes())
        }
        ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob(_) => {
            let value: Vec<u8> = (0..random.random_range(0..20)).map(|_| random.random()).collect();
            (Owned::Bytes(value.clone()), value)
        }
        ColumnType::Json => {
            let value = format!(r#"{{"a": [{}, {:?}, "é\n"], "bb": null}}"#, random.random::<i64>(), random.random::<f64>());
            (Owned::Json(value.clone()), value.into_bytes())
        }
        _ => {
            let value: String = (0..random.random_range(0..20)).map(|_| random.random::<char>()).collect();
            (Owned::Text(value.clone()), value.into_bytes())
        }
    };
    text.extend_from_slice(&printed);
    value
}

enum Owned {
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    Date(Date),
    Time(i64),
    DateTime(DateTime),
    Timestamp(DateTime),
    Json(String),
}

impl Owned {
    fn borrow(&self) -> ValueRef<'_> {
        match self {
            Self::Int(v) => ValueRef::Int(*v),
            Self::UInt(v) => ValueRef::UInt(*v),
            Self::Float(v) => ValueRef::Float(*v),
            Self::Double(v) => ValueRef::Double(*v),
            Self::Decimal(v) => ValueRef::Decimal(v),
            Self::Text(v) => ValueRef::Text(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Date(v) => ValueRef::Date(*v),
            Self::Time(v) => ValueRef::Time(*v),
            Self::DateTime(v) => ValueRef::DateTime(*v),
            Self::Timestamp(v) => ValueRef::Timestamp(*v),
            Self::Json(v) => ValueRef::Json(v),
        }
    }
}

#[test]
fn a_value_read_as_text_and_one_of_the_stream_have_one_form() {
    let mut random = StdRng::seed_from_u64(2);
    for (ty, targets) in all_pairs() {
        for pg in targets {
            let rule = rule(ty.clone(), pg);
            for _ in 0..500 {
                let mut text = Vec::new();
                let value = random_value(&ty, &mut random, &mut text);
                let mut scratch = Vec::new();
                let read = value_of_source_text(&ty, &text, &mut scratch).unwrap_or_else(|error| panic!("{ty}: {error}: {}", String::from_utf8_lossy(&text)));
                assert_eq!(read, value.borrow());
                let (mut a, mut b) = (Vec::new(), Vec::new());
                rule.value(value.borrow(), &mut a).expect("the stream's form");
                rule.source_text(&text, &mut b).expect("the text's form");
                assert_eq!(a, b, "{ty} against {pg}: {}", String::from_utf8_lossy(&text));
            }
        }
    }
}
