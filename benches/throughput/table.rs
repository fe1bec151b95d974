//! Sets rows of text in columns. Pure; tested by `tests/bench`.

/// Sets rows under a head: the first column to the left, the others to the right, two blanks between.
///
/// Rows may be shorter than the head. Widths are counted in characters, so that `×` and `µ` take one place.
pub fn set(head: &[String], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (known, cell) in widths.iter_mut().zip(row) {
            *known = (*known).max(width(cell));
        }
    }
    let mut text = line(head, &widths);
    text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)));
    text.push('\n');
    for row in rows {
        text.push_str(&line(row, &widths));
    }
    text
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (at, (cell, column)) in cells.iter().zip(widths).enumerate() {
        let blanks = " ".repeat(column - width(cell));
        if at == 0 {
            text.push_str(cell);
            text.push_str(&blanks);
        } else {
            text.push_str("  ");
            text.push_str(&blanks);
            text.push_str(cell);
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}
