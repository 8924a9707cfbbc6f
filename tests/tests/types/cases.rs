//! Every pair of types that is compared, with random values as SQL literals of both sides: the equal one, and ones that differ a little.

use rand::Rng;
use rand::rngs::StdRng;

/// A value as literals.
pub struct Value {
    /// On the source.
    pub source: String,
    /// The same on the target.
    pub target: String,
    /// On the target, and different: one unit in the last place, a microsecond, a space, a letter's case.
    pub planted: Vec<String>,
}

type Make = Box<dyn Fn(&mut StdRng) -> Value>;

/// A pair of types.
pub struct Case {
    /// The source's type.
    pub source: &'static str,
    /// The target's type.
    pub target: &'static str,
    /// A random value.
    pub make: Make,
}

const ENUM: &str = "ENUM('a','B c','it''s','é','10')";
const SET: &str = "SET('a','B c','it''s','é','q\"\\\\')";
/// The enumerations of the target that the cases need.
pub const TARGET_TYPES: [&str; 2] = ["CREATE TYPE mood AS ENUM ('a','B c','it''s','é','10')", "CREATE TYPE kind AS ENUM ('a','B c','it''s','é','q\"\\')"];

/// All pairs.
pub fn all() -> Vec<Case> {
    let case = |source, target, make| Case { source, target, make };
    vec![
        case("TINYINT", "int2", integers(-128, 127, "int2")),
        case("TINYINT UNSIGNED", "int2", integers(0, 255, "int2")),
        case("SMALLINT", "int2", integers(-32_768, 32_767, "int2")),
        case("SMALLINT UNSIGNED", "int4", integers(0, 65_535, "int4")),
        case("MEDIUMINT", "int4", integers(-8_388_608, 8_388_607, "int4")),
        case("MEDIUMINT UNSIGNED ZEROFILL", "int4", integers(0, 16_777_215, "int4")),
        case("INT", "int4", integers(-2_147_483_648, 2_147_483_647, "int4")),
        case("INT UNSIGNED ZEROFILL", "int8", integers(0, 4_294_967_295, "int8")),
        case("BIGINT", "int8", integers(i64::MIN.into(), i64::MAX.into(), "numeric::int8")),
        case("BIGINT UNSIGNED", "numeric(20)", integers(0, u64::MAX.into(), "numeric")),
        case("TINYINT(1)", "int2", integers(-128, 127, "int2")),
        case("TINYINT(1)", "bool", booleans()),
        case("BIT(1)", "bool", booleans()),
        case("BIT(10)", "bit(10)", bits(10, |v| format!("B'{v:010b}'"))),
        case("BIT(64)", "bit(64)", bits(64, |v| format!("B'{v:064b}'"))),
        case("BIT(13)", "varbit", bits(13, |v| format!("B'{v:013b}'"))),
        case("BIT(13)", "bytea", bits(13, |v| format!("'\\x{v:04x}'"))),
        case("BIT(20)", "int8", bits(20, |v| v.to_string())),
        case("BIT(64)", "numeric", bits(64, |v| v.to_string())),
        case("DECIMAL(20,6)", "numeric(20,6)", decimals("0.000001")),
        case("DECIMAL(65,30)", "numeric", decimals("1e-30")),
        case("DECIMAL(20,6) UNSIGNED ZEROFILL", "numeric", Box::new(|r| decimal(r.random_range(0..1_000_000), "0.000001"))),
        case("DECIMAL(10,0)", "int8", integers(-9_999_999_999, 9_999_999_999, "int8")),
        case("DECIMAL(20,6)", "float8", decimals_as_doubles()),
        case("FLOAT", "float4", reals(|v| format!("'{v:e}'::float4"))),
        case("FLOAT", "float8", reals(|v| format!("'{:e}'::float8", f64::from(v)))),
        case("FLOAT", "numeric", reals(|v| format!("'{v:e}'::numeric"))),
        case("DOUBLE", "float8", doubles("float8")),
        case("DOUBLE", "numeric", doubles("numeric")),
        case("YEAR", "int2", Box::new(|r| year(*pick(r, &[0, 1901, 1970, 2024, 2155])))),
        case("DATE", "date", dates("date", &["- 1", "+ 1"])),
        case("DATE", "timestamp", dates("timestamp", &["+ interval '1 microsecond'", "+ interval '1 day'"])),
        case("DATETIME(6)", "timestamp", time_stamps(6, "timestamp", 1, 10_000)),
        case("DATETIME(3)", "timestamp(6)", time_stamps(3, "timestamp", 1, 10_000)),
        case("DATETIME", "timestamp", time_stamps(0, "timestamp", 1, 10_000)),
        case("DATETIME(6)", "timestamptz", time_stamps(6, "timestamptz", 1, 10_000)),
        case("TIMESTAMP(6)", "timestamptz", time_stamps(6, "timestamptz", 1971, 2038)),
        case("TIMESTAMP", "timestamptz", time_stamps(0, "timestamptz", 1971, 2038)),
        case("TIMESTAMP(2)", "timestamp", time_stamps(2, "timestamp", 1971, 2038)),
        case("TIME(6)", "time", times("time", 0, 24)),
        case("TIME(6)", "interval", times("interval", -838, 838)),
        case("TIME(6)", "int8", times("int8", -838, 838)),
        case("CHAR(20)", "text", texts(20, true)),
        case("CHAR(20)", "char(30)", texts(20, true)),
        case("VARCHAR(40)", "varchar(50)", texts(40, false)),
        case("TEXT", "text", texts(200, false)),
        case("LONGTEXT", "text", texts(3000, false)),
        case("VARCHAR(40) CHARACTER SET utf16", "text", texts(40, false)),
        case("VARCHAR(40) CHARACTER SET latin1", "text", letters(&['é', '€', 'ÿ', 'Ž', 'a', ' ', '™', '\u{81}'])),
        case("VARCHAR(40) CHARACTER SET cp1251", "text", letters(&['я', 'Ж', 'Ё', 'Ї', 'a', ' ', '№'])),
        case("CHAR(40) CHARACTER SET koi8r", "text", letters(&['я', 'Ж', 'Ё', 'a', '─'])),
        case("TEXT CHARACTER SET cp1250", "text", letters(&['ř', 'Ł', 'ő', 'a', ' ', '€'])),
        case("VARCHAR(40) CHARACTER SET greek", "text", letters(&['ώ', 'Ψ', 'ς', 'a', ' '])),
        case("CHAR(36)", "uuid", uuids()),
        case("VARCHAR(40)", "uuid", uuids()),
        case("BINARY(16)", "bytea", binaries(16, 17, "bytea")),
        case("BINARY(16)", "uuid", binaries(16, 17, "uuid")),
        case("VARBINARY(30)", "bytea", binaries(0, 30, "bytea")),
        case("BLOB", "bytea", binaries(0, 300, "bytea")),
        case(ENUM, "text", labels("text")),
        case(ENUM, "mood", labels("mood")),
        case(SET, "text", sets("text")),
        case(SET, "text[]", sets("text[]")),
        case(SET, "kind[]", sets("kind[]")),
        case("JSON", "jsonb", documents("jsonb")),
        case("JSON", "json", documents("json")),
        case("JSON", "text", documents("text")),
    ]
}

fn pick<'a, T>(random: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn source_text(text: &str) -> String {
    if text.is_empty() { "''".into() } else { format!("_utf8mb4 X'{}'", hex(text.as_bytes())) }
}

fn target_text(text: &str) -> String {
    format!("convert_from('\\x{}', 'UTF8')", hex(text.as_bytes()))
}

fn integers(least: i128, most: i128, cast: &'static str) -> Make {
    Box::new(move |random| {
        let value = match random.random_range(0..10) {
            0 => least,
            1 => most,
            _ => least + ((random.random::<u128>() >> random.random_range(0..120)) % (most.abs_diff(least) + 1)) as i128,
        };
        let other = if value == most { value - 1 } else { value + 1 };
        let target = |value: i128| format!("({value})::{cast}");
        Value { source: value.to_string(), target: target(value), planted: vec![target(other)] }
    })
}

fn booleans() -> Make {
    Box::new(|random| {
        let value: bool = random.random();
        Value { source: u8::from(value).to_string(), target: value.to_string(), planted: vec![(!value).to_string()] }
    })
}

fn bits(width: u32, print: fn(u64) -> String) -> Make {
    Box::new(move |random| {
        let most = u64::MAX >> (64 - width);
        let value = *pick(random, &[0, most, 1, most >> 1]) ^ (random.random::<u64>() & most);
        Value { source: value.to_string(), target: print(value), planted: vec![print(value ^ 1), print(value ^ (1 << (width - 1)))] }
    })
}

fn decimal(whole: i64, least: &str) -> Value {
    let text = format!("{whole}.250000");
    Value { source: text.clone(), target: format!("({text})::numeric"), planted: vec![format!("{text} + {least}")] }
}

fn decimals(least: &'static str) -> Make {
    Box::new(move |random| decimal(random.random_range(-10_i64.pow(13)..10_i64.pow(13)) >> random.random_range(0..40), least))
}

fn decimals_as_doubles() -> Make {
    Box::new(|random| {
        let text = format!("{}.{:06}", random.random_range(1..10_i64.pow(13)), random.random_range(0..1_000_000));
        let nearest: f64 = text.parse().expect("a number");
        let target = |value: f64| format!("'{value:e}'::float8");
        Value { source: text, target: target(nearest), planted: vec![target(nearest.next_up()), target(nearest.next_down())] }
    })
}

fn reals(print: fn(f32) -> String) -> Make {
    Box::new(move |random| {
        let value = *pick(random, &[0.1, 16_777_216.0, f32::from_bits(1), f32::from_bits(random.clone().random())]);
        let value = if value.is_finite() && value != 0.0 && value.abs() < 3e38 { value } else { -2.5 };
        let planted = [value.next_up(), value.next_down()].into_iter().filter(|other| *other != 0.0).map(print).collect();
        Value { source: format!("{:e}", f64::from(value)), target: print(value), planted }
    })
}

fn doubles(cast: &'static str) -> Make {
    Box::new(move |random| {
        let value = *pick(random, &[0.1, 1e15, 5e-324, f64::MAX, f64::from_bits(random.clone().random())]);
        let fits = value.is_finite() && value != 0.0 && (cast == "float8" || (1e-90..1e90).contains(&value.abs()));
        let value = if fits { value } else { -1234.5678 };
        let target = |value: f64| format!("'{value:e}'::{cast}");
        let planted = [value.next_up(), value.next_down()].into_iter().filter(|other| other.is_finite() && *other != 0.0).map(target).collect();
        Value { source: format!("{value:e}"), target: target(value), planted }
    })
}

fn year(value: i32) -> Value {
    Value { source: format!("'{value:04}'"), target: format!("{value}::int2"), planted: vec![format!("{}::int2", value + 1), "1900::int2".into()] }
}

fn date(random: &mut StdRng, first: i32, end: i32) -> String {
    format!("{:04}-{:02}-{:02}", random.random_range(first..end), random.random_range(1..13), random.random_range(1..29))
}

fn dates(cast: &'static str, planted: &'static [&'static str]) -> Make {
    Box::new(move |random| {
        let date = date(random, 1, 10_000);
        let target = format!("'{date}'::{cast}");
        let mut others: Vec<String> = planted.iter().map(|more| format!("{target} {more}")).collect();
        others.extend([format!("'infinity'::{cast}"), format!("'-infinity'::{cast}"), format!("'0044-03-15 BC'::{cast}")]);
        Value { source: format!("'{date}'"), target, planted: others }
    })
}

fn time_stamps(digits: u32, cast: &'static str, first: i32, end: i32) -> Make {
    Box::new(move |random| {
        let clock = format!("{} {:02}:{:02}:{:02}", date(random, first, end), random.random_range(0..24), random.random_range(0..60), random.random_range(0..60));
        let unit = 10_u32.pow(6 - digits);
        let micros = *pick(random, &[0, 999_999, 500_000, random.clone().random_range(0..1_000_000)]) / unit * unit;
        let zone = if cast == "timestamptz" { "+00" } else { "" };
        let target = format!("'{clock}.{micros:06}{zone}'::{cast}");
        let source = if digits == 0 { format!("'{clock}'") } else { format!("'{clock}.{micros:06}'") };
        let planted = ["+ interval '1 microsecond'", "- interval '1 microsecond'", "+ interval '1 hour'"].map(|more| format!("{target} {more}"));
        let far = [format!("'infinity'::{cast}"), format!("'0044-03-15 00:00:00{zone} BC'::{cast}")];
        Value { source, target, planted: planted.into_iter().chain(far).collect() }
    })
}

fn times(cast: &'static str, least: i64, most: i64) -> Make {
    Box::new(move |random| {
        let hour = 3_600_000_000;
        let (least, most) = (least * hour, most * hour - 1_000_000);
        let value = *pick(random, &[0, 1, least + if least < 0 { 1_000_000 } else { 0 }, most, random.clone().random_range(least / 2..most)]);
        let print = |micros: i64| {
            let all = micros.unsigned_abs();
            let (seconds, sign) = (all / 1_000_000, if micros < 0 { "-" } else { "" });
            format!("'{sign}{:02}:{:02}:{:02}.{:06}'", seconds / 3600, seconds / 60 % 60, seconds % 60, all % 1_000_000)
        };
        let target = |micros: i64| if cast == "int8" { format!("({micros})::int8") } else { format!("{}::{cast}", print(micros)) };
        let other = if value == most { value - 1 } else { value + 1 };
        Value { source: print(value), target: target(value), planted: vec![target(other)] }
    })
}

fn text(text: &str, padded: bool) -> Value {
    let mut planted = vec![format!("{text}x"), format!("x{text}")];
    if !padded {
        planted.push(format!("{text} "));
    }
    let swapped: String = text.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect();
    if swapped != text {
        planted.push(swapped);
    }
    Value { source: source_text(text), target: target_text(text), planted: planted.iter().map(|other| target_text(other)).collect() }
}

fn word(random: &mut StdRng, most: usize) -> String {
    let letter = |random: &mut StdRng| match random.random_range(0..8) {
        0 => *pick(random, &[' ', '\'', '\\', '\t', '\n', '"', '\r', '\u{1}']),
        1 => random.random_range('\u{1}'..='\u{10ffff}'),
        2 => random.random_range('à'..='ÿ'),
        _ => random.random_range('A'..='z'),
    };
    (0..random.random_range(0..most)).map(|_| letter(random)).collect()
}

fn texts(most: usize, padded: bool) -> Make {
    Box::new(move |random| {
        let word = word(random, most);
        text(if padded { word.trim_end_matches(' ') } else { &word }, padded)
    })
}

fn letters(of: &'static [char]) -> Make {
    Box::new(move |random| {
        let word: String = (0..random.random_range(0..12)).map(|_| *pick(random, of)).collect();
        text(&word, false)
    })
}

fn uuids() -> Make {
    Box::new(|random| {
        let bytes: [u8; 16] = random.random();
        let digits = hex(&bytes);
        let hyphens = format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        let spelling = pick(random, &[hyphens.clone(), hyphens.to_uppercase(), digits.clone()]).clone();
        let mut other = bytes;
        other[15] ^= 1;
        Value { source: format!("'{spelling}'"), target: format!("'{digits}'::uuid"), planted: vec![format!("'{}'::uuid", hex(&other))] }
    })
}

fn binaries(least: usize, end: usize, cast: &'static str) -> Make {
    Box::new(move |random| {
        let bytes: Vec<u8> = (0..random.random_range(least..end)).map(|_| if random.random() { 0 } else { random.random() }).collect();
        let target = |bytes: &[u8]| format!("'{}{}'::{cast}", if cast == "bytea" { "\\x" } else { "" }, hex(bytes));
        let source = if bytes.is_empty() { "''".into() } else { format!("X'{}'", hex(&bytes)) };
        let mut planted = Vec::new();
        if let Some((last, first)) = bytes.split_last() {
            planted.push(target(&[first, &[last ^ 1]].concat()));
        }
        if cast == "bytea" {
            planted.push(target(&[bytes.as_slice(), &[0]].concat()));
        }
        Value { source, target: target(&bytes), planted }
    })
}

fn labels(cast: &'static str) -> Make {
    Box::new(move |random| {
        let at = random.random_range(0..5);
        let label = |at: usize| ["a", "B c", "it's", "é", "10"][at % 5];
        let target = |label: &str| format!("{}::{cast}", target_text(label));
        Value { source: source_text(label(at)), target: target(label(at)), planted: vec![target(label(at + 1))] }
    })
}

fn sets(cast: &'static str) -> Make {
    Box::new(move |random| {
        let members = |set: u32| (0..5).filter(move |at| set >> at & 1 == 1).map(|at| ["a", "B c", "it's", "é", "q\"\\"][at]);
        let target = |set: u32| match cast {
            "text" => target_text(&members(set).collect::<Vec<_>>().join(",")),
            _ => format!("ARRAY[{}]::{cast}", members(set).map(target_text).collect::<Vec<_>>().join(",")),
        };
        let set = random.random_range(0..32);
        let source = source_text(&members(set).collect::<Vec<_>>().join(","));
        Value { source, target: target(set), planted: vec![target(set ^ 1), target(set ^ 16)] }
    })
}

fn document(random: &mut StdRng, depth: u32) -> serde_json::Value {
    use serde_json::json;
    match random.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => json!(null),
        1 => json!(random.random::<i64>() >> random.random_range(0..64)),
        2 => json!(random.random::<u64>()),
        3 => Some(f64::from_bits(random.random())).filter(|value| value.is_finite() && value.abs() > 1e-290).map_or(json!(false), |value| json!(value)),
        4 => json!(f64::from(random.random_range(-100_000..100_000)) / 100.0),
        5 => json!(word(random, 12)),
        6 => (0..random.random_range(0..5)).map(|_| document(random, depth - 1)).collect(),
        _ => serde_json::Value::Object((0..random.random_range(0..6)).map(|_| (word(random, 5), document(random, depth - 1))).collect()),
    }
}

fn documents(cast: &'static str) -> Make {
    Box::new(move |random| {
        let document = document(random, 3);
        let target = |text: String| format!("{}::{cast}", target_text(&text));
        let planted = vec![target(serde_json::json!([document, 1]).to_string()), target(serde_json::json!({"": document}).to_string())];
        Value { source: source_text(&document.to_string()), target: target(document.to_string()), planted }
    })
}
