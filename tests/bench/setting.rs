//! The table.

use crate::table::set;

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let text = set(
        &row(&["", "fim", "dwarfs"]),
        &[row(&["find", "1.0 s", "0.50× (2 s)"]), row(&["read all", "3 µs"])],
    );
    let expected = "            fim       dwarfs\n\
                    ----------------------------\n\
                    find      1.0 s  0.50× (2 s)\n\
                    read all   3 µs\n";
    assert_eq!(text, expected);
}
