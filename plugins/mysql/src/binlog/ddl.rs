//! What a statement in the binlog is: only enough of it to know which tables it touches and how. Never logged.

use plumbline_sdk::{SchemaChangeKind, TableId};

/// What a QUERY event does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// BEGIN, or START TRANSACTION after CREATE TABLE ... SELECT.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK of the transaction.
    Rollback,
    /// SAVEPOINT with its name.
    Savepoint(String),
    /// ROLLBACK TO with its name. Mostly the rows that were rolled back are not in the log; where a table without transactions took part, they are.
    RollbackTo(String),
    /// RELEASE SAVEPOINT: nothing to do.
    Release,
    /// XA START with its xid.
    XaStart(String),
    /// XA END.
    XaEnd,
    /// XA COMMIT with its xid.
    XaCommit(String),
    /// XA ROLLBACK with its xid.
    XaRollback(String),
    /// TRUNCATE TABLE.
    Truncate(TableId),
    /// A schema statement, per table: kind, table, and a rename's new name. `begins`: CREATE TABLE ... SELECT, whose rows follow.
    Schema {
        /// Per table.
        changes: Vec<(SchemaChangeKind, TableId, Option<TableId>)>,
        /// Whether a transaction with rows follows (`START TRANSACTION` at the end).
        begins: bool,
    },
    /// A change of rows as a statement: the tables that it may change.
    Rows(Vec<TableId>),
    /// A statement that may change rows of any table: a query that calls a function, a change with a common table expression.
    RowsOfAny,
    /// DROP DATABASE.
    DropSchema(String),
    /// Anything else: accounts, views, routines.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word or a quoted name; unquoted words keep their case.
    Name(String, bool),
    Sign(char),
    Text(String),
}

/// Tokens that are read of a statement: enough for a table of 4096 columns.
const MOST_TOKENS: usize = 100_000;

/// Classifies a statement; `default` is the schema that unqualified names mean.
pub fn classify(statement: &str, default: &str) -> Statement {
    let tokens = tokens(statement, MOST_TOKENS);
    let mut words = Words { tokens: &tokens, at: 0, default };
    let first = words.word();
    match first.as_deref() {
        Some("BEGIN") => Statement::Begin,
        Some("START") => Statement::Begin,
        Some("COMMIT") => Statement::Commit,
        Some("ROLLBACK") => {
            words.skip("WORK");
            if words.skip("TO") {
                words.skip("SAVEPOINT");
                words.name().map_or(Statement::Other, |name| Statement::RollbackTo(name.to_lowercase()))
            } else {
                Statement::Rollback
            }
        }
        Some("SAVEPOINT") => words.name().map_or(Statement::Other, |name| Statement::Savepoint(name.to_lowercase())),
        Some("RELEASE") => Statement::Release,
        Some("XA") => xa(&mut words),
        Some("TRUNCATE") => {
            words.skip("TABLE");
            words.table().map_or(Statement::Other, Statement::Truncate)
        }
        Some("CREATE") => create(&mut words, &tokens),
        Some("ALTER") => alter(&mut words, &tokens),
        Some("DROP") => drop(&mut words),
        Some("RENAME") => {
            if words.skip("TABLE") || words.skip("TABLES") { rename(&mut words) } else { Statement::Other }
        }
        Some("INSERT" | "REPLACE") => {
            while ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"].iter().any(|word| words.skip(word)) {}
            words.table().map_or(Statement::RowsOfAny, |table| Statement::Rows(vec![table]))
        }
        // Several tables may be changed: any that is named before these words is taken to be one.
        Some("UPDATE") => words.tables_until(&["SET"]),
        Some("DELETE") => words.tables_until(&["WHERE", "ORDER", "LIMIT"]),
        Some("LOAD") => {
            while words.word().is_some_and(|word| word != "TABLE") {}
            words.table().map_or(Statement::RowsOfAny, |table| Statement::Rows(vec![table]))
        }
        Some("WITH" | "SELECT" | "DO" | "CALL") => Statement::RowsOfAny,
        _ => Statement::Other,
    }
}

fn one(kind: SchemaChangeKind, table: Option<TableId>, begins: bool) -> Statement {
    table.map_or(Statement::Other, |table| Statement::Schema { changes: vec![(kind, table, None)], begins })
}

fn create(words: &mut Words<'_>, tokens: &[Token]) -> Statement {
    if words.skip("TEMPORARY") {
        return Statement::Other;
    }
    while ["ONLINE", "OFFLINE", "UNIQUE", "FULLTEXT", "SPATIAL"].iter().any(|word| words.skip(word)) {}
    if words.skip("TABLE") {
        if words.skip("IF") {
            words.skip("NOT");
            words.skip("EXISTS");
        }
        let begins = matches!(tokens, [.., Token::Name(start, false), Token::Name(transaction, false)]
            if start.eq_ignore_ascii_case("START") && transaction.eq_ignore_ascii_case("TRANSACTION"));
        one(SchemaChangeKind::Create, words.table(), begins)
    } else if words.skip("INDEX") {
        while words.word().is_some_and(|word| word != "ON") {}
        one(SchemaChangeKind::Alter, words.table(), false)
    } else {
        Statement::Other
    }
}

fn alter(words: &mut Words<'_>, tokens: &[Token]) -> Statement {
    if !words.skip("TABLE") {
        return Statement::Other;
    }
    let Some(table) = words.table() else { return Statement::Other };
    // `ALTER TABLE a ... RENAME [TO|AS] b` at depth 0 is a rename too; RENAME COLUMN, INDEX and KEY are not.
    let mut depth = 0;
    let mut rest = Words { tokens, at: words.at, default: words.default };
    while rest.at < tokens.len() {
        match &tokens[rest.at] {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            Token::Name(word, false) if depth == 0 && word.eq_ignore_ascii_case("RENAME") => {
                rest.at += 1;
                if !rest.sees("COLUMN") && !rest.sees("INDEX") && !rest.sees("KEY") {
                    while ["TO", "AS"].iter().any(|word| rest.skip(word)) || rest.sign('=') {}
                    if let Some(new) = rest.table() {
                        return Statement::Schema { changes: vec![(SchemaChangeKind::Rename, table, Some(new))], begins: false };
                    }
                }
                continue;
            }
            _ => {}
        }
        rest.at += 1;
    }
    one(SchemaChangeKind::Alter, Some(table), false)
}

fn drop(words: &mut Words<'_>) -> Statement {
    while ["ONLINE", "OFFLINE"].iter().any(|word| words.skip(word)) {}
    if words.skip("TABLE") || words.skip("TABLES") {
        if words.skip("IF") {
            words.skip("EXISTS");
        }
        let mut changes = Vec::new();
        while let Some(table) = words.table() {
            changes.push((SchemaChangeKind::Drop, table, None));
            if !words.sign(',') {
                break;
            }
        }
        if changes.is_empty() { Statement::Other } else { Statement::Schema { changes, begins: false } }
    } else if words.skip("INDEX") {
        while words.word().is_some_and(|word| word != "ON") {}
        one(SchemaChangeKind::Alter, words.table(), false)
    } else if words.skip("DATABASE") || words.skip("SCHEMA") {
        if words.skip("IF") {
            words.skip("EXISTS");
        }
        words.name().map_or(Statement::Other, Statement::DropSchema)
    } else {
        Statement::Other
    }
}

fn rename(words: &mut Words<'_>) -> Statement {
    let mut changes = Vec::new();
    while let Some(old) = words.table() {
        words.skip("TO");
        let Some(new) = words.table() else { break };
        changes.push((SchemaChangeKind::Rename, old, Some(new)));
        if !words.sign(',') {
            break;
        }
    }
    if changes.is_empty() { Statement::Other } else { Statement::Schema { changes, begins: false } }
}

fn xa(words: &mut Words<'_>) -> Statement {
    let verb = words.word();
    let xid = || words.tokens[words.at.min(words.tokens.len())..].iter().map(|token| format!("{token:?}")).filter(|text| !text.contains("ONE") && !text.contains("PHASE")).collect::<String>();
    match verb.as_deref() {
        Some("START" | "BEGIN") => Statement::XaStart(xid()),
        Some("END") => Statement::XaEnd,
        Some("COMMIT") => Statement::XaCommit(xid()),
        Some("ROLLBACK") => Statement::XaRollback(xid()),
        _ => Statement::Other,
    }
}

/// Words that stand between the names of a change of several tables.
const BETWEEN_NAMES: [&str; 16] = [
    "FROM", "JOIN", "INNER", "LEFT", "RIGHT", "OUTER", "CROSS", "NATURAL", "STRAIGHT_JOIN", "ON", "AS", "USING", "IGNORE", "LOW_PRIORITY", "QUICK", "AND",
];

struct Words<'t> {
    tokens: &'t [Token],
    at: usize,
    default: &'t str,
}

impl Words<'_> {
    /// The next token as an upper-case word; quoted names give themselves.
    fn word(&mut self) -> Option<String> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(match token {
            Token::Name(name, false) => name.to_ascii_uppercase(),
            Token::Name(name, true) | Token::Text(name) => name.clone(),
            Token::Sign(sign) => sign.to_string(),
        })
    }
    fn sees(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Name(name, false)) if name.eq_ignore_ascii_case(word))
    }
    fn skip(&mut self, word: &str) -> bool {
        let sees = self.sees(word);
        self.at += usize::from(sees);
        sees
    }
    fn sign(&mut self, sign: char) -> bool {
        let sees = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(sees);
        sees
    }
    /// A table name with or without schema.
    fn table(&mut self) -> Option<TableId> {
        let first = self.name()?;
        if self.sign('.') {
            let second = self.name()?;
            return Some(TableId::new(first, second));
        }
        Some(TableId::new(self.default, first))
    }
    /// All names before one of these words, as tables.
    fn tables_until(&mut self, ends: &[&str]) -> Statement {
        let mut tables = Vec::new();
        while self.at < self.tokens.len() && !ends.iter().any(|end| self.sees(end)) {
            if BETWEEN_NAMES.iter().any(|word| self.skip(word)) {
                continue;
            }
            match self.table() {
                Some(table) => tables.push(table),
                None => self.at += 1,
            }
        }
        if tables.is_empty() { Statement::RowsOfAny } else { Statement::Rows(tables) }
    }
    fn name(&mut self) -> Option<String> {
        match self.tokens.get(self.at)? {
            Token::Name(name, _) => {
                self.at += 1;
                Some(name.clone())
            }
            _ => None,
        }
    }
}

/// The first tokens of a statement; comments are left out, versioned ones (`/*!80000 ... */`) are read.
fn tokens(statement: &str, most: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = statement;
    while let Some(first) = rest.chars().next() {
        if tokens.len() >= most {
            break;
        }
        let after = &rest[first.len_utf8()..];
        match first {
            '/' if rest.starts_with("/*!") => {
                let digits = rest[3..].chars().take_while(char::is_ascii_digit).count();
                rest = &rest[3 + digits..];
            }
            '/' if rest.starts_with("/*") => rest = rest.find("*/").map_or("", |end| &rest[end + 2..]),
            '*' if rest.starts_with("*/") => rest = &rest[2..],
            '#' => rest = rest.find('\n').map_or("", |end| &rest[end + 1..]),
            '-' if rest.starts_with("-- ") || rest.starts_with("--\n") => rest = rest.find('\n').map_or("", |end| &rest[end + 1..]),
            '`' | '"' | '\'' => {
                let (text, left) = quoted(after, first);
                tokens.push(if first == '\'' { Token::Text(text) } else { Token::Name(text, true) });
                rest = left;
            }
            letter if letter.is_alphanumeric() || letter == '_' || letter == '$' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
                tokens.push(Token::Name(rest[..end].to_owned(), false));
                rest = &rest[end..];
            }
            white if white.is_whitespace() || white == ';' => rest = after,
            sign => {
                tokens.push(Token::Sign(sign));
                rest = after;
            }
        }
    }
    tokens
}

/// The content of a quoted text and what follows it; a doubled quote is the quote, a backslash escapes in strings.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            if letters.peek().is_some_and(|(_, next)| *next == quote) {
                letters.next();
                content.push(quote);
                continue;
            }
            return (content, &text[at + letter.len_utf8()..]);
        }
        if letter == '\\' && quote != '`' {
            if let Some((_, escaped)) = letters.next() {
                content.push(escaped);
            }
            continue;
        }
        content.push(letter);
    }
    (content, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use SchemaChangeKind::{Alter, Create, Drop, Rename};

    fn check(statement: &str, expected: Statement) {
        assert_eq!(classify(statement, "shop"), expected, "{statement}");
    }

    fn schema(kind: SchemaChangeKind, table: &str) -> Statement {
        Statement::Schema { changes: vec![(kind, TableId::new("shop", table), None)], begins: false }
    }

    #[test]
    fn statements_are_known_by_what_they_do_to_which_table() {
        check("BEGIN", Statement::Begin);
        check("COMMIT /* x */", Statement::Commit);
        check("ROLLBACK TO `S`", Statement::RollbackTo("s".into()));
        check("SAVEPOINT `s`", Statement::Savepoint("s".into()));
        check("ROLLBACK", Statement::Rollback);
        check("truncate `a``b`", Statement::Truncate(TableId::new("shop", "a`b")));
        check("TRUNCATE TABLE other.t", Statement::Truncate(TableId::new("other", "t")));
        check("create table if not exists t (id int)", schema(Create, "t"));
        check("CREATE TEMPORARY TABLE t (id int)", Statement::Other);
        check(
            "CREATE TABLE t (a int) START TRANSACTION",
            Statement::Schema { changes: vec![(Create, TableId::new("shop", "t"), None)], begins: true },
        );
        check("/* c */ ALTER TABLE t ADD COLUMN rename_me int", schema(Alter, "t"));
        check("ALTER TABLE t RENAME COLUMN a TO b", schema(Alter, "t"));
        check(
            "ALTER TABLE t ADD c int, RENAME TO u",
            Statement::Schema { changes: vec![(Rename, TableId::new("shop", "t"), Some(TableId::new("shop", "u")))], begins: false },
        );
        check(
            "RENAME TABLE a TO b, `c` TO `d`",
            Statement::Schema {
                changes: vec![
                    (Rename, TableId::new("shop", "a"), Some(TableId::new("shop", "b"))),
                    (Rename, TableId::new("shop", "c"), Some(TableId::new("shop", "d"))),
                ],
                begins: false,
            },
        );
        check("DROP TABLE IF EXISTS `t` /* generated by server */", schema(Drop, "t"));
        check("CREATE UNIQUE INDEX i ON t (a)", schema(Alter, "t"));
        check("DROP INDEX i ON t", schema(Alter, "t"));
        check("CREATE USER x IDENTIFIED BY 'secret'", Statement::Other);
        check("DROP DATABASE IF EXISTS `shop`", Statement::DropSchema("shop".into()));
        check("INSERT IGNORE INTO t VALUES (1)", Statement::Rows(vec![TableId::new("shop", "t")]));
        check("with x as (select 1) delete from t", Statement::RowsOfAny);
        check("SELECT `shop`.`f`(1)", Statement::RowsOfAny);
    }

    #[test]
    fn a_statement_on_several_tables_names_each() {
        let names = |statement: &str, table: &str| match classify(statement, "shop") {
            Statement::Rows(tables) => assert!(tables.contains(&TableId::new("shop", table)), "{statement}: {tables:?}"),
            other => panic!("{statement}: {other:?}"),
        };
        names("delete from t where a = 1", "t");
        names("UPDATE `t` SET a = 1", "t");
        names("UPDATE other.a JOIN shop.b ON a.id = b.id SET b.x = 1", "b");
        names("DELETE a FROM other.c JOIN a ON a.id = c.id WHERE a.x = 1", "a");
    }
}
