//! Reads a MySQL schema statement for what it does to columns and keys. Pure.
//!
//! The lexer is sqlparser's; the clauses are read here, because a clause that does not change any row (an index, a comment, an option that
//! MySQL adds next year) must not stop a table, and one that may change rows must never be taken for one that does not.

use plumbline_sdk::{ColumnType, Date, DateTime, ValueRef};
use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// What one clause of `ALTER TABLE` does.
#[derive(Debug, Clone, PartialEq)]
pub enum Clause {
    /// A new column.
    AddColumn(Definition),
    /// A column goes.
    DropColumn(String),
    /// A column is renamed.
    RenameColumn {
        /// Its old name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// `MODIFY` and `CHANGE`: a column gets a definition, and perhaps a name.
    Redefine {
        /// Its old name.
        from: String,
        /// What it is now.
        to: Definition,
    },
    /// The table gets a primary key over these columns.
    AddPrimaryKey(Vec<String>),
    /// The table loses its primary key.
    DropPrimaryKey,
    /// Nothing that the rows or their identity show.
    Nothing,
    /// Something this version cannot apply, in words.
    Unknown(String),
}

/// A column's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// What existing rows get.
    pub fill: Fill,
    /// Whether it is (by itself) the primary key.
    pub primary: bool,
}

/// What existing rows get in a new column.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// NULL.
    Null,
    /// This value.
    Value(Literal),
    /// The server computed it, row by row or by its clock: nobody else can know it.
    Computed,
}

/// A value of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// An integer.
    Int(i128),
    /// A decimal, a float: digits.
    Number(String),
    /// Text, an enum's label, a set.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A date.
    Date(Date),
    /// A date and time.
    DateTime(DateTime),
    /// Microseconds.
    Time(i64),
    /// JSON.
    Json(String),
}

impl Literal {
    /// As a cell of the stream.
    pub fn value<'a>(&'a self, ty: &ColumnType) -> ValueRef<'a> {
        match self {
            Self::Int(v) => i64::try_from(*v).map_or_else(|_| ValueRef::UInt(u64::try_from(*v).unwrap_or(u64::MAX)), ValueRef::Int),
            Self::Number(v) => match ty {
                ColumnType::Float => v.parse().map_or(ValueRef::Absent, ValueRef::Float),
                ColumnType::Double => v.parse().map_or(ValueRef::Absent, ValueRef::Double),
                _ => ValueRef::Decimal(v),
            },
            Self::Text(v) => ValueRef::Text(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Date(v) => ValueRef::Date(*v),
            Self::DateTime(v) => ValueRef::DateTime(*v),
            Self::Time(v) => ValueRef::Time(*v),
            Self::Json(v) => ValueRef::Json(v),
        }
    }
}

/// What a statement on one table does, clause by clause. `CREATE INDEX` and `DROP INDEX` do nothing that rows show.
pub fn clauses(statement: &str) -> Vec<Clause> {
    let Some(tokens) = lex(statement) else { return vec![Clause::Unknown("the statement cannot be read".into())] };
    let mut at = Cursor { tokens: &tokens, at: 0 };
    if (at.take_word("CREATE") || at.take_word("DROP")) && at.tokens.iter().any(|token| is_word(token, "INDEX")) {
        return vec![Clause::Nothing];
    }
    if !at.take_word("ALTER") {
        return vec![Clause::Unknown("this kind of statement is not known".into())];
    }
    let _ = at.take_word("ONLINE") || at.take_word("IGNORE");
    if !at.take_word("TABLE") || at.name().is_none() {
        return vec![Clause::Unknown("the statement cannot be read".into())];
    }
    while at.take(&Token::Period) {
        at.name();
    }
    split(&tokens[at.at..]).into_iter().flat_map(clause).collect()
}

/// Whether this is `RENAME TABLE`, which does nothing but that.
pub fn is_rename_only(statement: &str) -> bool {
    lex(statement).is_some_and(|tokens| tokens.first().is_some_and(|token| is_word(token, "RENAME")))
}

fn lex(statement: &str) -> Option<Vec<Token>> {
    let tokens = Tokenizer::new(&MySqlDialect {}, statement).tokenize().ok()?;
    Some(tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF)).collect())
}

/// Parts between commas that are not in parentheses.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0i32);
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => {
                parts.push(&tokens[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Options of a table and clauses on indexes, constraints and storage: no row changes.
const HARMLESS: &[&str] = &[
    "ALTER", "ALGORITHM", "LOCK", "FORCE", "ENGINE", "COMMENT", "AUTO_INCREMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "DEFAULT", "CHARACTER", "CHARSET", "COLLATE",
    "CONVERT", "ORDER", "DISABLE", "ENABLE", "WITH", "WITHOUT", "STATS_PERSISTENT", "STATS_AUTO_RECALC", "STATS_SAMPLE_PAGES", "ENCRYPTION", "COMPRESSION",
    "TABLESPACE", "SECONDARY_ENGINE", "SECONDARY_LOAD", "SECONDARY_UNLOAD", "MAX_ROWS", "MIN_ROWS", "CHECKSUM", "DELAY_KEY_WRITE", "AVG_ROW_LENGTH", "PACK_KEYS",
    "INSERT_METHOD", "UNION", "CONNECTION", "DATA", "INDEX", "AUTOEXTEND_SIZE", "PASSWORD", "ENGINE_ATTRIBUTE", "SECONDARY_ENGINE_ATTRIBUTE", "PARTITION",
    "REMOVE", "COALESCE", "REORGANIZE", "REBUILD", "ANALYZE", "CHECK", "OPTIMIZE", "REPAIR",
];

fn clause(tokens: &[Token]) -> Vec<Clause> {
    let mut at = Cursor { tokens, at: 0 };
    let unknown = |what: &str| vec![Clause::Unknown(what.to_owned())];
    let Some(word) = at.word() else { return unknown("the statement cannot be read") };
    match word.as_str() {
        "ADD" => add(at),
        "DROP" => match at.word().as_deref() {
            Some("INDEX" | "KEY" | "FOREIGN" | "CHECK" | "CONSTRAINT") => vec![Clause::Nothing],
            Some("PRIMARY") => vec![Clause::DropPrimaryKey],
            Some("PARTITION") => unknown("DROP PARTITION removes rows without naming them"),
            Some("COLUMN") => at.name().map_or_else(|| unknown("the statement cannot be read"), |name| vec![Clause::DropColumn(name)]),
            _ => {
                at.at = 1;
                at.name().map_or_else(|| unknown("the statement cannot be read"), |name| vec![Clause::DropColumn(name)])
            }
        },
        "RENAME" => match at.word().as_deref() {
            Some("COLUMN") => match (at.name(), at.take_word("TO"), at.name()) {
                (Some(from), true, Some(to)) => vec![Clause::RenameColumn { from, to }],
                _ => unknown("the statement cannot be read"),
            },
            // The table's own new name comes with the event.
            _ => vec![Clause::Nothing],
        },
        "MODIFY" => {
            at.take_word("COLUMN");
            definition(&mut at).map_or_else(unknown, |to| vec![Clause::Redefine { from: to.name.clone(), to }])
        }
        "CHANGE" => {
            at.take_word("COLUMN");
            match at.name() {
                Some(from) => definition(&mut at).map_or_else(unknown, |to| vec![Clause::Redefine { from, to }]),
                None => unknown("the statement cannot be read"),
            }
        }
        "TRUNCATE" => unknown("TRUNCATE PARTITION removes rows without naming them"),
        "EXCHANGE" => unknown("EXCHANGE PARTITION changes rows without naming them"),
        "DISCARD" | "IMPORT" => unknown("a tablespace is exchanged, which changes rows without naming them"),
        word if HARMLESS.contains(&word) => vec![Clause::Nothing],
        word => vec![Clause::Unknown(format!("`{word}` is not known"))],
    }
}

fn add(mut at: Cursor<'_>) -> Vec<Clause> {
    let unknown = |what: &str| vec![Clause::Unknown(what.to_owned())];
    if at.take_word("CONSTRAINT") && !at.at_word("PRIMARY") && !at.at_word("UNIQUE") && !at.at_word("FOREIGN") && !at.at_word("CHECK") {
        at.name();
    }
    if at.take_word("PRIMARY") {
        let columns = at.tokens.iter().position(|token| *token == Token::LParen).map(|open| {
            at.at = open + 1;
            split(at.group()).into_iter().filter_map(|part| Cursor { tokens: part, at: 0 }.name()).collect::<Vec<_>>()
        });
        return columns.map_or_else(|| unknown("the statement cannot be read"), |columns| vec![Clause::AddPrimaryKey(columns)]);
    }
    for word in ["INDEX", "KEY", "FULLTEXT", "SPATIAL", "UNIQUE", "FOREIGN", "CHECK", "PARTITION"] {
        if at.at_word(word) {
            return vec![Clause::Nothing];
        }
    }
    at.take_word("COLUMN");
    let mut clauses = Vec::new();
    let one = |at: &mut Cursor<'_>, clauses: &mut Vec<Clause>| match definition(at) {
        Ok(column) => {
            let primary = column.primary.then(|| column.name.clone());
            clauses.push(Clause::AddColumn(column));
            clauses.extend(primary.map(|name| Clause::AddPrimaryKey(vec![name])));
        }
        Err(why) => clauses.push(Clause::Unknown(why.to_owned())),
    };
    if at.take(&Token::LParen) {
        for part in split(at.group()) {
            one(&mut Cursor { tokens: part, at: 0 }, &mut clauses);
        }
    } else {
        one(&mut at, &mut clauses);
    }
    clauses
}

/// `name type attributes`.
fn definition(at: &mut Cursor<'_>) -> Result<Definition, &'static str> {
    const UNREADABLE: &str = "a column's definition cannot be read";
    let name = at.name().ok_or(UNREADABLE)?;
    let word = at.word().ok_or(UNREADABLE)?;
    let serial = word == "SERIAL";
    let mut ty = column_type(at, &word).ok_or("a column's type is not known")?;
    let (mut nullable, mut explicit, mut computed, mut primary) = (!serial, None, serial, false);
    while let Some(word) = at.word() {
        match word.as_str() {
            "UNSIGNED" | "ZEROFILL" => set_unsigned(&mut ty),
            "NOT" => {
                at.take_word("NULL");
                nullable = false;
            }
            "NULL" => nullable = true,
            "DEFAULT" => match default(at, &ty) {
                Some(fill) => explicit = Some(fill),
                None => computed = true,
            },
            "AUTO_INCREMENT" | "AS" => computed = true,
            "PRIMARY" => {
                primary = true;
                nullable = false;
            }
            "KEY" if at.previous_is_not("UNIQUE", "PRIMARY") => {
                primary = true;
                nullable = false;
            }
            "CHARACTER" | "CHARSET" => {
                at.take_word("SET");
                if at.word().as_deref() == Some("BINARY") {
                    ty = as_bytes(ty);
                }
            }
            "BYTE" => ty = as_bytes(ty),
            // The time of an update is in the image of the row.
            "ON" => {
                at.word();
                at.word();
            }
            _ => {}
        }
        at.skip_values();
    }
    let fill = match (computed, explicit) {
        (true, _) => Fill::Computed,
        (_, Some(fill)) => fill,
        (_, None) if nullable => Fill::Null,
        (_, None) => implicit(&ty),
    };
    Ok(Definition { name, ty, nullable, fill, primary })
}

fn set_unsigned(ty: &mut ColumnType) {
    match ty {
        ColumnType::TinyInt { unsigned, .. }
        | ColumnType::SmallInt { unsigned }
        | ColumnType::MediumInt { unsigned }
        | ColumnType::Int { unsigned }
        | ColumnType::BigInt { unsigned } => *unsigned = true,
        _ => {}
    }
}

fn as_bytes(ty: ColumnType) -> ColumnType {
    match ty {
        ColumnType::Char(n) => ColumnType::Binary(n),
        ColumnType::VarChar(n) => ColumnType::VarBinary(n),
        ColumnType::Text(n) => ColumnType::Blob(n),
        other => other,
    }
}

fn column_type(at: &mut Cursor<'_>, word: &str) -> Option<ColumnType> {
    use ColumnType as T;
    let boolean = matches!(word, "BOOL" | "BOOLEAN");
    let national = matches!(word, "NATIONAL");
    let mut word = if national { at.word()? } else { word.to_owned() };
    if matches!(word.as_str(), "CHAR" | "CHARACTER" | "NCHAR") && (at.take_word("VARYING") || at.take_word("VARCHAR")) {
        word = "VARCHAR".into();
    }
    if word == "LONG" {
        let bytes = at.take_word("VARBINARY");
        let _ = at.take_word("VARCHAR");
        return Some(if bytes { T::Blob(3) } else { T::Text(3) });
    }
    if word == "DOUBLE" {
        at.take_word("PRECISION");
    }
    if matches!(word.as_str(), "ENUM" | "SET") {
        let labels: Vec<String> = if at.take(&Token::LParen) { at.group().iter().filter_map(text_of).collect() } else { return None };
        return Some(if word == "ENUM" { T::Enum(labels.into()) } else { T::Set(labels.into()) });
    }
    let numbers: Vec<u32> = if at.take(&Token::LParen) {
        at.group().iter().filter_map(|token| if let Token::Number(digits, _) = token { digits.parse().ok() } else { None }).collect()
    } else {
        Vec::new()
    };
    let first = |default: u32| numbers.first().copied().unwrap_or(default);
    let small = |default: u32| u8::try_from(first(default)).unwrap_or(u8::MAX);
    Some(match word.as_str() {
        "TINYINT" | "BOOL" | "BOOLEAN" | "INT1" => T::TinyInt { unsigned: false, boolean: boolean || first(0) == 1 },
        "SMALLINT" | "INT2" => T::SmallInt { unsigned: false },
        "MEDIUMINT" | "INT3" | "MIDDLEINT" => T::MediumInt { unsigned: false },
        "INT" | "INTEGER" | "INT4" => T::Int { unsigned: false },
        "BIGINT" | "INT8" => T::BigInt { unsigned: false },
        "SERIAL" => T::BigInt { unsigned: true },
        "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => {
            T::Decimal { precision: small(10), scale: numbers.get(1).and_then(|&scale| u8::try_from(scale).ok()).unwrap_or(0) }
        }
        "FLOAT" if numbers.len() == 1 && first(0) > 24 => T::Double,
        "FLOAT" | "FLOAT4" => T::Float,
        "DOUBLE" | "REAL" | "FLOAT8" => T::Double,
        "BIT" => T::Bit(small(1)),
        "YEAR" => T::Year,
        "DATE" => T::Date,
        "DATETIME" => T::DateTime(small(0)),
        "TIMESTAMP" => T::Timestamp(small(0)),
        "TIME" => T::Time(small(0)),
        "CHAR" | "CHARACTER" | "NCHAR" => T::Char(first(1)),
        "VARCHAR" | "VARCHARACTER" | "NVARCHAR" => T::VarChar(first(255)),
        "BINARY" => T::Binary(first(1)),
        "VARBINARY" => T::VarBinary(first(255)),
        "TINYTEXT" => T::Text(1),
        "TEXT" => T::Text(2),
        "MEDIUMTEXT" => T::Text(3),
        "LONGTEXT" => T::Text(4),
        "TINYBLOB" => T::Blob(1),
        "BLOB" => T::Blob(2),
        "MEDIUMBLOB" => T::Blob(3),
        "LONGBLOB" => T::Blob(4),
        "JSON" => T::Json,
        "VECTOR" => T::Vector(first(2048)),
        "GEOMETRY" | "POINT" | "LINESTRING" | "POLYGON" | "MULTIPOINT" | "MULTILINESTRING" | "MULTIPOLYGON" | "GEOMETRYCOLLECTION" | "GEOMCOLLECTION" => {
            T::Geometry(word.to_lowercase().into())
        }
        _ => return None,
    })
}

fn text_of(token: &Token) -> Option<String> {
    match token {
        Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) | Token::NationalStringLiteral(text) => Some(text.clone()),
        _ => None,
    }
}

/// The literal after DEFAULT; None: an expression.
fn default(at: &mut Cursor<'_>, ty: &ColumnType) -> Option<Fill> {
    let negative = at.take(&Token::Minus);
    at.take(&Token::Plus);
    if matches!(at.peek(), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.starts_with('_')) {
        // A character set's introducer.
        at.at += 1;
    }
    let token = at.peek()?.clone();
    let fill = match &token {
        Token::Word(word) if word.quote_style.is_none() => match word.value.to_uppercase().as_str() {
            "NULL" => Some(Fill::Null),
            "TRUE" => literal(ty, "1", true).map(Fill::Value),
            "FALSE" => literal(ty, "0", true).map(Fill::Value),
            _ => None,
        },
        Token::Number(digits, _) => literal(ty, &if negative { format!("-{digits}") } else { digits.clone() }, true).map(Fill::Value),
        Token::HexStringLiteral(digits) => match ty {
            ColumnType::Binary(_) | ColumnType::VarBinary(_) => bytes_of(digits).map(|bytes| Fill::Value(Literal::Bytes(padded(bytes, ty)))),
            _ => None,
        },
        Token::SingleQuotedByteStringLiteral(bits) | Token::DoubleQuotedByteStringLiteral(bits) => match ty {
            ColumnType::Bit(_) => i128::from_str_radix(bits, 2).ok().map(|v| Fill::Value(Literal::Int(v))),
            _ => None,
        },
        token => text_of(token).and_then(|text| literal(ty, &text, false)).map(Fill::Value),
    };
    at.at += 1;
    // `DEFAULT 'a' 'b'` and `DEFAULT (1) + 2` are not literals; only the first token was looked at.
    if fill.is_none() && token == Token::LParen {
        at.group();
    }
    fill
}

/// The value of a literal in a column of this type; None where MySQL's conversion is more than reading it.
fn literal(ty: &ColumnType, text: &str, bare_number: bool) -> Option<Literal> {
    use ColumnType as T;
    Some(match ty {
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } | T::Bit(_) => Literal::Int(text.trim().parse().ok()?),
        T::Year if text.trim().len() == 4 || text.trim() == "0" => Literal::Int(text.trim().parse().ok()?),
        T::Decimal { .. } | T::Float | T::Double => {
            let digits = text.trim();
            digits.parse::<f64>().ok().filter(|number| number.is_finite())?;
            Literal::Number(digits.to_owned())
        }
        T::Char(_) => Literal::Text(text.trim_end_matches(' ').to_owned()),
        T::VarChar(_) => Literal::Text(text.to_owned()),
        // A bare number names the label by its place.
        T::Enum(labels) if !bare_number => Literal::Text(labels.iter().find(|label| label.eq_ignore_ascii_case(text))?.clone()),
        T::Set(labels) if !bare_number => {
            let wanted: Vec<&str> = text.split(',').filter(|label| !label.is_empty()).collect();
            if wanted.iter().any(|wanted| !labels.iter().any(|label| label.eq_ignore_ascii_case(wanted))) {
                return None;
            }
            let chosen: Vec<&str> = labels.iter().filter(|label| wanted.iter().any(|wanted| label.eq_ignore_ascii_case(wanted))).map(String::as_str).collect();
            Literal::Text(chosen.join(","))
        }
        T::Binary(_) | T::VarBinary(_) => Literal::Bytes(padded(text.as_bytes().to_vec(), ty)),
        T::Date => Literal::Date(date(text)?),
        T::DateTime(_) => {
            let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
            let micros = clock(time)?;
            let part = |unit: i64, modulus: i64| u8::try_from(micros / unit % modulus).ok();
            Literal::DateTime(DateTime {
                date: date(day)?,
                hour: part(3_600_000_000, 24)?,
                minute: part(60_000_000, 60)?,
                second: part(1_000_000, 60)?,
                micros: u32::try_from(micros % 1_000_000).ok()?,
            })
        }
        T::Time(_) => Literal::Time(clock(text)?),
        // A TIMESTAMP's literal is in the session's time zone, which the statement does not say.
        _ => return None,
    })
}

/// A BINARY is as long as it is declared.
fn padded(mut bytes: Vec<u8>, ty: &ColumnType) -> Vec<u8> {
    if let ColumnType::Binary(n) = ty {
        bytes.resize(bytes.len().max(usize::try_from(*n).unwrap_or(0)), 0);
    }
    bytes
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
    (0..even.len()).step_by(2).map(|at| even.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())).collect()
}

/// `YYYY-MM-DD`.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    Some(Date { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? })
}

/// `[-]HH:MM:SS[.ffffff]` in microseconds.
fn clock(text: &str) -> Option<i64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut parts = whole.split(':');
    let (hours, minutes, seconds) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    if parts.next().is_some() || fraction.len() > 6 || minutes > 59 || seconds > 59 {
        return None;
    }
    let micros: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<6}").parse().ok()? };
    let all = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
    Some(if negative { -all } else { all })
}

/// What MySQL gives existing rows in a NOT NULL column without default.
fn implicit(ty: &ColumnType) -> Fill {
    use ColumnType as T;
    Fill::Value(match ty {
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } | T::Bit(_) | T::Year => Literal::Int(0),
        T::Decimal { .. } | T::Float | T::Double => Literal::Number("0".into()),
        T::Char(_) | T::VarChar(_) | T::Text(_) | T::Set(_) => Literal::Text(String::new()),
        T::Enum(labels) => Literal::Text(labels.first().cloned().unwrap_or_default()),
        T::Binary(n) => Literal::Bytes(vec![0; usize::try_from(*n).unwrap_or(0)]),
        T::VarBinary(_) | T::Blob(_) => Literal::Bytes(Vec::new()),
        T::Time(_) => Literal::Time(0),
        T::Json => Literal::Json("null".into()),
        // A zero date, or nothing that MySQL allows.
        T::Date | T::DateTime(_) | T::Timestamp(_) | T::Geometry(_) | T::Vector(_) | T::Other(_) => return Fill::Computed,
    })
}

#[derive(Debug)]
struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }
    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }
    fn at_word(&self, word: &str) -> bool {
        self.peek().is_some_and(|token| is_word(token, word))
    }
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }
    /// The next bare word, in capitals; stays where the next token is something else.
    fn word(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                self.at += 1;
                Some(word.value.to_uppercase())
            }
            _ => None,
        }
    }
    /// The next name, quoted or not.
    fn name(&mut self) -> Option<String> {
        let name = match self.peek()? {
            Token::Word(word) => word.value.clone(),
            Token::DoubleQuotedString(name) => name.clone(),
            _ => return None,
        };
        self.at += 1;
        Some(name)
    }
    /// The tokens up to the parenthesis that closes the one just taken.
    fn group(&mut self) -> &'a [Token] {
        let from = self.at;
        let mut depth = 1;
        while let Some(token) = self.peek() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return &self.tokens[from..self.at - 1];
            }
        }
        &self.tokens[from..]
    }
    /// Whether the word before the one just taken is neither of these.
    fn previous_is_not(&self, a: &str, b: &str) -> bool {
        self.at < 2 || !(is_word(&self.tokens[self.at - 2], a) || is_word(&self.tokens[self.at - 2], b))
    }
    /// Passes what belongs to an attribute and is no word: strings, numbers, parentheses, quoted names.
    fn skip_values(&mut self) {
        while let Some(token) = self.peek() {
            match token {
                Token::Word(word) if word.quote_style.is_none() => return,
                _ => {}
            }
            let open = *token == Token::LParen;
            self.at += 1;
            if open {
                self.group();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, expected: &[Clause]) {
        assert_eq!(clauses(statement), expected, "{statement}");
    }

    fn column(name: &str, ty: ColumnType, nullable: bool, fill: Fill) -> Definition {
        Definition { name: name.into(), ty, nullable, fill, primary: false }
    }

    const INT: ColumnType = ColumnType::Int { unsigned: false };

    #[test]
    fn columns_are_added_with_what_existing_rows_get() {
        let add = |name: &str, ty, nullable, fill| Clause::AddColumn(column(name, ty, nullable, fill));
        check("ALTER TABLE t ADD COLUMN a INT", &[add("a", INT, true, Fill::Null)]);
        check("alter table `s`.`t` add `a b` int unsigned not null default 7 comment 'x, y' after `z`", &[add("a b", ColumnType::Int { unsigned: true }, false, Fill::Value(Literal::Int(7)))]);
        check("ALTER TABLE t ADD (a INT NOT NULL, b VARCHAR(10) DEFAULT 'it''s')", &[
            add("a", INT, false, Fill::Value(Literal::Int(0))),
            add("b", ColumnType::VarChar(10), true, Fill::Value(Literal::Text("it's".into()))),
        ]);
        check("ALTER TABLE t ADD a DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6), ADD INDEX i (a)", &[
            add("a", ColumnType::DateTime(6), true, Fill::Computed),
            Clause::Nothing,
        ]);
        check("ALTER TABLE t ADD a DATE NOT NULL DEFAULT '2020-01-02' FIRST, ALGORITHM=INSTANT", &[
            add("a", ColumnType::Date, false, Fill::Value(Literal::Date(Date { year: 2020, month: 1, day: 2 }))),
            Clause::Nothing,
        ]);
        check("ALTER TABLE t ADD a INT AS (b + 1) STORED", &[add("a", INT, true, Fill::Computed)]);
        check("ALTER TABLE t ADD a INT GENERATED ALWAYS AS (b + 1) VIRTUAL", &[add("a", INT, true, Fill::Computed)]);
        check("ALTER TABLE t ADD a ENUM('x','y') NOT NULL", &[add("a", ColumnType::Enum(["x".to_owned(), "y".to_owned()].into()), false, Fill::Value(Literal::Text("x".into())))]);
        check("ALTER TABLE t ADD a DECIMAL(10,2) DEFAULT -1.50", &[add("a", ColumnType::Decimal { precision: 10, scale: 2 }, true, Fill::Value(Literal::Number("-1.50".into())))]);
        check("ALTER TABLE t ADD a TIMESTAMP NULL DEFAULT '2020-01-01 00:00:00'", &[add("a", ColumnType::Timestamp(0), true, Fill::Computed)]);
        check("ALTER TABLE t ADD a TIME DEFAULT '-01:00:00.5'", &[add("a", ColumnType::Time(0), true, Fill::Value(Literal::Time(-3_600_500_000)))]);
        check("ALTER TABLE t ADD a BIT(4) DEFAULT b'101'", &[add("a", ColumnType::Bit(4), true, Fill::Value(Literal::Int(5)))]);
        check("ALTER TABLE t ADD a BINARY(3) DEFAULT x'0aFF'", &[add("a", ColumnType::Binary(3), true, Fill::Value(Literal::Bytes(vec![10, 255, 0])))]);
        check("ALTER TABLE t ADD a VARBINARY(3) DEFAULT 0x0a", &[add("a", ColumnType::VarBinary(3), true, Fill::Value(Literal::Bytes(vec![10])))]);
        check("ALTER TABLE t ADD a BOOL NOT NULL DEFAULT TRUE", &[add("a", ColumnType::TinyInt { unsigned: false, boolean: true }, false, Fill::Value(Literal::Int(1)))]);
        check("ALTER TABLE t ADD a TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL", &[add("a", ColumnType::Text(2), false, Fill::Value(Literal::Text(String::new())))]);
        check("ALTER TABLE t ADD a JSON DEFAULT (JSON_ARRAY())", &[add("a", ColumnType::Json, true, Fill::Computed)]);
        check("ALTER TABLE t /*!80023 ADD COLUMN a INT INVISIBLE */", &[add("a", INT, true, Fill::Null)]);
        check("ALTER TABLE t ADD a VARCHAR(5) DEFAULT _utf8mb4'x'", &[add("a", ColumnType::VarChar(5), true, Fill::Value(Literal::Text("x".into())))]);
    }

    #[test]
    fn a_new_key_is_seen() {
        let mut id = column("id", ColumnType::BigInt { unsigned: false }, false, Fill::Computed);
        id.primary = true;
        check("ALTER TABLE t ADD id BIGINT AUTO_INCREMENT PRIMARY KEY", &[Clause::AddColumn(id), Clause::AddPrimaryKey(vec!["id".into()])]);
        check("ALTER TABLE t ADD CONSTRAINT pk PRIMARY KEY USING BTREE (`a`, b DESC)", &[Clause::AddPrimaryKey(vec!["a".into(), "b".into()])]);
        check("ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (b)", &[Clause::DropPrimaryKey, Clause::AddPrimaryKey(vec!["b".into()])]);
    }

    #[test]
    fn columns_are_dropped_renamed_and_redefined() {
        check("ALTER TABLE t DROP a, DROP COLUMN `b`", &[Clause::DropColumn("a".into()), Clause::DropColumn("b".into())]);
        check("ALTER TABLE t RENAME COLUMN a TO b", &[Clause::RenameColumn { from: "a".into(), to: "b".into() }]);
        check("ALTER TABLE t MODIFY a BIGINT NOT NULL", &[Clause::Redefine {
            from: "a".into(),
            to: column("a", ColumnType::BigInt { unsigned: false }, false, Fill::Value(Literal::Int(0))),
        }]);
        check("ALTER TABLE t CHANGE COLUMN a b VARCHAR(20)", &[Clause::Redefine { from: "a".into(), to: column("b", ColumnType::VarChar(20), true, Fill::Null) }]);
    }

    #[test]
    fn what_no_row_shows_is_nothing() {
        for statement in [
            "CREATE UNIQUE INDEX i ON t (a)",
            "DROP INDEX i ON t",
            "ALTER TABLE t ADD UNIQUE KEY u (a, b), DROP INDEX x, RENAME INDEX y TO z",
            "ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES p (id) ON DELETE CASCADE",
            "ALTER TABLE t ADD CONSTRAINT CHECK (a > 0)",
            "ALTER TABLE t ALTER COLUMN a SET DEFAULT 5",
            "ALTER TABLE t ENGINE=InnoDB COMMENT='add column x int'",
            "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
            "ALTER TABLE t AUTO_INCREMENT = 100",
            "ALTER TABLE t RENAME TO u",
            "ALTER TABLE t PARTITION BY HASH(id) PARTITIONS 4",
        ] {
            assert!(clauses(statement).iter().all(|clause| *clause == Clause::Nothing), "{statement}: {:?}", clauses(statement));
        }
    }

    #[test]
    fn a_rename_may_have_more_to_do() {
        assert!(is_rename_only("/* c */ RENAME TABLE a TO b"));
        assert!(!is_rename_only("ALTER TABLE a ADD c INT, RENAME TO b"));
        check("ALTER TABLE a ADD c INT, RENAME TO b", &[Clause::AddColumn(column("c", INT, true, Fill::Null)), Clause::Nothing]);
    }

    #[test]
    fn what_changes_rows_silently_is_unknown() {
        for statement in [
            "ALTER TABLE t DROP PARTITION p1",
            "ALTER TABLE t TRUNCATE PARTITION p1",
            "ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u",
            "ALTER TABLE t DISCARD TABLESPACE",
            "ALTER TABLE t FROBNICATE",
            "ALTER TABLE t ADD a QUUX",
            "ALTER TABLE t ADD a INT DEFAULT 'x",
        ] {
            assert!(clauses(statement).iter().any(|clause| matches!(clause, Clause::Unknown(_))), "{statement}: {:?}", clauses(statement));
        }
    }
}
