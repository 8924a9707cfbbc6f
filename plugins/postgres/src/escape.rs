//! COPY's text format: escaping a cell, and taking a line apart.

use plumbline_sdk::RowBlock;

/// Appends a cell in COPY's text format, without the delimiter.
pub fn push_cell(out: &mut Vec<u8>, cell: Option<&[u8]>) {
    let Some(cell) = cell else {
        out.extend_from_slice(b"\\N");
        return;
    };
    let mut from = 0;
    for (i, &byte) in cell.iter().enumerate() {
        let escape = match byte {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            _ => continue,
        };
        out.extend_from_slice(&cell[from..i]);
        out.extend_from_slice(&[b'\\', escape]);
        from = i + 1;
    }
    out.extend_from_slice(&cell[from..]);
}

/// Takes one line of COPY's text format apart into the next row of `block`. `line` may end in its newline.
/// False: the line does not have `width` cells; the block is then not to be used.
pub fn take_line(line: &[u8], width: usize, block: &mut RowBlock) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if width == 0 {
        return line.is_empty();
    }
    let mut cells = 0;
    let mut rest = line;
    loop {
        let end = rest.iter().position(|&byte| byte == b'\t' || byte == b'\\').unwrap_or(rest.len());
        let more = if rest.get(end) == Some(&b'\\') {
            take_escaped(rest, end, block)
        } else {
            block.push(Some(&rest[..end]));
            end
        };
        cells += 1;
        if more >= rest.len() {
            return cells == width;
        }
        if cells == width {
            return false;
        }
        rest = &rest[more + 1..];
    }
}

/// A cell with an escape at `first`; gives where the cell ends.
fn take_escaped(rest: &[u8], first: usize, block: &mut RowBlock) -> usize {
    if first == 0 && rest.get(1) == Some(&b'N') && rest.get(2).is_none_or(|&byte| byte == b'\t') {
        block.push(None);
        return 2;
    }
    let mut at = first;
    block.push_with(|cells| {
        let mut from = 0;
        while let Some(&byte) = rest.get(at) {
            match byte {
                b'\t' => break,
                b'\\' => {
                    cells.extend_from_slice(&rest[from..at]);
                    // The server writes only these; any other character stands for itself.
                    match rest.get(at + 1) {
                        Some(b'n') => cells.push(b'\n'),
                        Some(b't') => cells.push(b'\t'),
                        Some(b'r') => cells.push(b'\r'),
                        Some(b'b') => cells.push(8),
                        Some(b'f') => cells.push(12),
                        Some(b'v') => cells.push(11),
                        Some(&other) => cells.push(other),
                        None => {}
                    }
                    at += 2;
                    from = at.min(rest.len());
                }
                _ => at += 1,
            }
        }
        at = at.min(rest.len());
        cells.extend_from_slice(&rest[from..at]);
    });
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[Option<&str>]) {
        let mut block = RowBlock::new(expected.len());
        assert!(take_line(line.as_bytes(), expected.len(), &mut block), "{line:?}");
        let got: Vec<_> = (0..expected.len()).map(|i| block.cell(0, i).map(|cell| std::str::from_utf8(cell).expect("utf-8"))).collect();
        assert_eq!(got, expected, "{line:?}");
    }

    #[test]
    fn a_line_is_taken_apart() {
        check("1\ta\n", &[Some("1"), Some("a")]);
        check("\\N\t\n", &[None, Some("")]);
        check("\t\\N", &[Some(""), None]);
        check("a\\\\b\\tc\\nd\\re\tx\n", &[Some("a\\b\tc\nd\re"), Some("x")]);
        check("\\\\N\t\\\\\n", &[Some("\\N"), Some("\\")]);
        check("\\\\x41\n", &[Some("\\x41")]);
        check("\n", &[Some("")]);
        check("\\b\\f\\v\n", &[Some("\u{8}\u{c}\u{b}")]);
    }

    #[test]
    fn a_line_of_another_width_is_refused() {
        let mut block = RowBlock::new(2);
        assert!(!take_line(b"1\n", 2, &mut block));
        assert!(!take_line(b"1\t2\t3\n", 2, &mut block));
    }

    #[test]
    fn what_is_escaped_reads_back() {
        for cell in [Some("a\\N\t\n\r'\""), None, Some(""), Some("\\N"), Some("é🙂")] {
            let mut line = Vec::new();
            push_cell(&mut line, cell.map(str::as_bytes));
            line.push(b'\t');
            push_cell(&mut line, Some(b"end"));
            line.push(b'\n');
            check(std::str::from_utf8(&line).expect("utf-8"), &[cell, Some("end")]);
        }
    }
}
