//! Both sides' rows side by side, by SELECTs of the tests' own and none of our readers.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable;
use sqlx::{AssertSqlSafe, Row};

use crate::servers::Pair;

/// A table's rows as text, with how often each is there.
pub type Rows = BTreeMap<String, u64>;

/// How one table is read on both sides so that equal rows give equal text.
pub struct Look {
    /// The table on the source, quoted.
    pub source: &'static str,
    /// The table on the target, quoted.
    pub target: &'static str,
    /// Expression on the source and on the target, by column.
    pub columns: &'static [(&'static str, &'static str)],
}

/// How the tables of the [workload](crate::workload) are read.
pub const LOOKS: &[Look] = &[
    Look {
        source: "ints",
        target: "ints",
        columns: &[
            ("id", "id"),
            ("n", "n"),
            ("amount", "amount"),
            ("CAST(f * 1024 AS SIGNED)", "(f * 1024)::bigint"),
            ("flag", "flag::int"),
            ("HEX(note)", "upper(encode(convert_to(note, 'UTF8'), 'hex'))"),
            ("CAST(TIME_TO_SEC(t) AS SIGNED)", "trunc(extract(epoch from t))::bigint"),
            ("MICROSECOND(t)", "abs(extract(microseconds from t)::bigint) % 1000000"),
            ("DATE_FORMAT(at, '%Y-%m-%d %H:%i:%s.%f')", "to_char(at, 'YYYY-MM-DD HH24:MI:SS.US')"),
            ("DATE_FORMAT(ts, '%Y-%m-%d %H:%i:%s.%f')", "to_char(ts AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
            ("JSON_EXTRACT(j, '$.w')", "j -> 'w'"),
            ("JSON_EXTRACT(j, '$.k[0]')", "CASE jsonb_typeof(j -> 'k') WHEN 'array' THEN j -> 'k' -> 0 ELSE j -> 'k' END"),
            ("LPAD(BIN(bits), 12, '0')", "bits"),
            ("e", "e"),
            ("y", "y"),
            ("d", "d"),
            ("HEX(blobby)", "upper(encode(blobby, 'hex'))"),
        ],
    },
    Look { source: "pairs", target: "pairs", columns: &[("a", "a"), ("HEX(b)", "upper(encode(convert_to(b, 'UTF8'), 'hex'))"), ("v", "v"), ("HEX(w)", "upper(encode(convert_to(w, 'UTF8'), 'hex'))")] },
    Look { source: "names", target: "names", columns: &[("name", "name"), ("v", "v"), ("c", "rtrim(c)")] },
    Look { source: "bins", target: "bins", columns: &[("HEX(id)", "upper(encode(id, 'hex'))"), ("HEX(data)", "upper(encode(data, 'hex'))"), ("CONCAT(CHAR_LENGTH(txt), LEFT(txt, 40))", "char_length(txt) || left(txt, 40)")] },
    Look { source: "keyless", target: "keyless", columns: &[("a", "a"), ("HEX(b)", "upper(encode(convert_to(b, 'UTF8'), 'hex'))"), ("c", "c")] },
    Look { source: "latin", target: "latin", columns: &[("id", "id"), ("CONVERT(word USING utf8mb4)", "word"), ("mid", "mid"), ("small", "small")] },
    Look { source: "`Mixed \"Case\" ``tick```", target: "\"Mixed \"\"Case\"\" `tick`\"", columns: &[("`the id`", "\"the id\""), ("`select`", "\"select\""), ("`UP`", "\"UP\"")] },
    Look { source: "grows", target: "grows", columns: &[("id", "id"), ("v", "v")] },
];

/// The rows of both sides.
///
/// # Panics
/// Where a side refuses the SELECT.
pub async fn both(pair: &Pair, look: &Look) -> (Rows, Rows) {
    let source: Vec<String> = look.columns.iter().map(|(source, _)| format!("IFNULL(CAST({source} AS CHAR), '~')")).collect();
    let target: Vec<String> = look.columns.iter().map(|(_, target)| format!("coalesce(({target})::text, '~')")).collect();
    let mut conn = pair.source().await;
    let sql = format!("SELECT CONCAT_WS('|', {}) AS line FROM {}", source.join(", "), look.source);
    let lines: Vec<String> = conn.query(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let _ = conn.disconnect().await;
    let sql = format!("SELECT concat_ws('|', {}) AS line FROM {}", target.join(", "), look.target);
    let mut conn = pair.target().await;
    let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    (count(lines), count(rows.iter().map(|row| row.get(0))))
}

fn count(lines: impl IntoIterator<Item = String>) -> Rows {
    let mut rows = Rows::new();
    for line in lines {
        *rows.entry(line).or_default() += 1;
    }
    rows
}

/// Fails where a table of the workload is not the same on both sides, and shows some of what differs.
///
/// # Panics
/// See above.
pub async fn are_equal(pair: &Pair) {
    are_equal_of(pair, |_| true).await;
}

/// The same of the tables that `wanted` wants by name.
///
/// # Panics
/// See above.
pub async fn are_equal_of(pair: &Pair, wanted: impl Fn(&str) -> bool) {
    for look in LOOKS.iter().filter(|look| wanted(look.source)) {
        let (source, target) = both(pair, look).await;
        let missing: Vec<_> = source.iter().filter(|(line, n)| target.get(*line) != Some(n)).take(3).collect();
        let extra: Vec<_> = target.iter().filter(|(line, n)| source.get(*line) != Some(n)).take(3).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{} differs; on the source: {missing:#?}\non the target: {extra:#?}", look.source);
    }
}
