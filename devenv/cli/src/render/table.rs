//! Columns as kubectl prints them.

/// Header and rows, each column as wide as its widest cell; the last one is not
/// padded.
pub fn table<const N: usize>(header: &[&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut width = header.map(|h| h.chars().count());
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(width)
            .map(|(c, w)| format!("{c:<w$}"))
            .collect();
        padded.join("   ").trim_end().to_owned()
    };
    let head = line(header.to_vec());
    let body = rows
        .iter()
        .map(|r| line(r.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(body).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["api1".to_owned(), "1/1".to_owned()],
            ["ñandú-api".to_owned(), "0/1".to_owned()],
        ];
        let lines = super::table(&["NAME", "READY"], &rows);
        assert_eq!(
            lines,
            ["NAME        READY", "api1        1/1", "ñandú-api   0/1"]
        );
    }
}
