//! Names and literals in SQL text. Every name in a statement of this crate comes through here, in the catalog's own spelling.

use plumbline_sdk::{Error, Result};

/// The longest identifier that PostgreSQL keeps; it cuts longer ones silently, so that two names may become one.
pub const MAX_NAME_BYTES: usize = 63;

/// A quoted identifier.
pub fn ident(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    push_ident(&mut text, name);
    text
}

/// Appends a quoted identifier.
pub fn push_ident(out: &mut String, name: &str) {
    out.push('"');
    for c in name.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

/// `"schema"."name"`.
pub fn qualified(schema: &str, name: &str) -> String {
    let mut text = String::with_capacity(schema.len() + name.len() + 5);
    push_ident(&mut text, schema);
    text.push('.');
    push_ident(&mut text, name);
    text
}

/// A string literal under `standard_conforming_strings=on`.
pub fn literal(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    push_literal(&mut text, value);
    text
}

/// Appends a string literal under `standard_conforming_strings=on`.
pub fn push_literal(out: &mut String, value: &str) {
    out.push('\'');
    for c in value.chars() {
        if c == '\'' {
            out.push('\'');
        }
        out.push(c);
    }
    out.push('\'');
}

/// Appends one element of an array literal, quoted (`{"a","b"}` has two).
pub fn push_array_element(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Refuses a name that PostgreSQL cannot hold as it is.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::rejected("a name must not be empty or contain a NUL character"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::rejected(format!(
            "the name `{name}` has {} bytes, PostgreSQL keeps {MAX_NAME_BYTES} and would cut the rest silently; rename it on the source to at most {MAX_NAME_BYTES} bytes",
            name.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_nothing_is_folded() {
        assert_eq!(ident("Order"), "\"Order\"");
        assert_eq!(ident("a\"b🙂`"), "\"a\"\"b🙂`\"");
        assert_eq!(qualified("s\"", "t;--"), "\"s\"\"\".\"t;--\"");
        assert_eq!(literal("it's \\ "), "'it''s \\ '");
    }

    #[test]
    fn array_elements_escape_quotes_and_backslashes() {
        let mut text = String::new();
        push_array_element(&mut text, "a\"\\b,{}");
        assert_eq!(text, "\"a\\\"\\\\b,{}\"");
    }

    #[test]
    fn a_name_that_would_be_cut_is_refused() {
        assert!(check_name(&"x".repeat(63)).is_ok());
        assert!(check_name(&"x".repeat(64)).is_err());
        assert!(check_name(&"é".repeat(32)).is_err());
        assert!(check_name("a\0b").is_err());
        assert!(check_name("").is_err());
    }
}
