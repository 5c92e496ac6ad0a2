//! Columns of text.

use std::fmt::Write as _;

/// Sets rows in columns that are as wide as their widest cell. The first row is the heading; columns of which it begins
/// with a blank are set flush right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.trim().chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let is_right = |column: usize| {
        rows.first().and_then(|heading| heading.get(column)).is_some_and(|cell| cell.starts_with(' '))
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = cell.trim();
            // Writing to a string does not fail.
            let _ = if is_right(column) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number of things.
pub(crate) fn number(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["Name", " Bytes"], ["a", "1"], ["longer", "12345"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(String::from).to_vec()).collect();
        assert_eq!(table(&rows), "Name    Bytes\na           1\nlonger  12345\n");
        assert_eq!(table(&[]), "");
    }
}
