//! What stands in a terminal: columns, and text from outside made harmless.

/// The most characters of one cell.
const CELL_CHARS_MAX: usize = 48;

/// Text from outside on one line. An event's key could hold escape sequences that rewrite what a person sees.
#[must_use]
pub fn line(text: &str) -> String {
    text.chars()
        .map(|c| if is_harmful(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Text from outside with its lines and tabs kept.
#[must_use]
pub fn lines(text: &str) -> String {
    let keep = |c: char| matches!(c, '\n' | '\t') || !is_harmful(c);
    text.chars().map(|c| if keep(c) { c } else { '\u{fffd}' }).collect()
}

/// Controls, and what reorders the text around it.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text from outside as a cell: on one line, and cut.
#[must_use]
pub fn cell(text: &str) -> String {
    let mut cell: String = line(text).chars().take(CELL_CHARS_MAX).collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        cell.pop();
        cell.push('…');
    }
    cell
}

/// Rows under a head, in columns as wide as their widest cell. No line ends in blanks, and none in a line break.
#[must_use]
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let widths = head.map(|title| title.chars().count());
    let widths = rows.iter().fold(widths, |mut widths, row| {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
        widths
    });
    let show = |cells: [&str; N]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![show(head)];
    lines.extend(rows.iter().map(|row| show(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

/// JSON with a line per member and element, to the letter: no number is rounded and no member is moved. `None` if it is none.
#[must_use]
pub fn indented(json: &str) -> Option<String> {
    serde_json::from_str::<&serde_json::value::RawValue>(json).ok()?;
    let mut indenter = Indenter::default();
    let (mut in_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            indenter.out.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
        } else if !c.is_ascii_whitespace() {
            in_string = c == '"';
            indenter.add(c);
        }
    }
    Some(indenter.out)
}

/// Writes the characters of valid JSON that stand outside its strings.
#[derive(Default)]
struct Indenter {
    out: String,
    depth: usize,
    /// Whether an object or array has just begun: an empty one stays on its line.
    is_fresh: bool,
}

impl Indenter {
    fn add(&mut self, c: char) {
        let is_end = matches!(c, '}' | ']');
        if is_end {
            self.depth = self.depth.saturating_sub(1);
        }
        if is_end != self.is_fresh {
            self.break_line();
        }
        self.is_fresh = matches!(c, '{' | '[');
        self.out.push(c);
        match c {
            '{' | '[' => self.depth += 1,
            ',' => self.break_line(),
            ':' => self.out.push(' '),
            _ => {}
        }
    }

    fn break_line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["1".to_owned(), "größe".to_owned(), String::new()],
            ["22222".to_owned(), "b".to_owned(), "x".to_owned()],
        ];
        let expected = "A      BB     C\n1      größe\n22222  b      x";
        assert_eq!(table(["A", "BB", "C"], &rows), expected);
    }

    #[test]
    fn text_from_outside_can_not_move_the_cursor() {
        assert_eq!(line("a\u{1b}[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(lines("a\u{1b}\n\tb\r"), "a\u{fffd}\n\tb\u{fffd}");
        assert_eq!(cell(&"x".repeat(60)).chars().count(), CELL_CHARS_MAX);
        assert_eq!(cell("short"), "short");
    }

    #[test]
    fn json_is_indented_to_the_letter() {
        let json = r#"{"b":1.10,"a":[123456789012345678901234567890,{ },[]],"s":"{\"x\": [1,2]}\\" , "n":null}"#;
        let expected = r#"{
  "b": 1.10,
  "a": [
    123456789012345678901234567890,
    {},
    []
  ],
  "s": "{\"x\": [1,2]}\\",
  "n": null
}"#;
        assert_eq!(indented(json).unwrap(), expected);
        assert_eq!(indented("{"), None);
        assert_eq!(indented(" 1 ").unwrap(), "1");
    }
}
