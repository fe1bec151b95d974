//! Medians, spreads, figures, ratios and the generator of numbers.

use crate::{
    figures::{Unit, figure, median, percentile, ratio, spread},
    rng::Rng,
};

#[test]
fn the_median_is_the_middle_one_or_the_mean_of_two() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0]), Some(3.0));
    assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
}

#[test]
fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
    assert_eq!(percentile(&[], 0.5), None);
    assert_eq!(percentile(&[3.0], 0.99), Some(3.0));
    let mut hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    hundred.reverse();
    for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.501, 51.0), (0.99, 99.0), (1.0, 100.0)] {
        assert_eq!(percentile(&hundred, share), Some(expected), "{share}");
    }
    assert_eq!(percentile(&[1.0, 2.0, 100.0], 0.99), Some(100.0));
}

#[test]
fn the_spread_is_a_share_of_the_median() {
    assert_eq!(spread(&[]), None);
    assert_eq!(spread(&[0.0, 0.0]), None);
    assert_eq!(spread(&[2.0]), Some(0.0));
    assert_eq!(spread(&[1.0, 2.0, 4.0]), Some(1.5));
}

#[test]
fn figures_have_three_digits_and_a_unit() {
    let table = [
        (0.000_042, Unit::Seconds, "42 µs"),
        (0.001_234, Unit::Seconds, "1.23 ms"),
        (0.045_67, Unit::Seconds, "45.7 ms"),
        (0.1, Unit::Seconds, "0.10 s"),
        (1.0, Unit::Seconds, "1.00 s"),
        (99.94, Unit::Seconds, "99.9 s"),
        (123.4, Unit::Seconds, "123 s"),
        (840.0, Unit::Iops, "840/s"),
        (13_400.0, Unit::Iops, "13.4k/s"),
        (497.3, Unit::Mebibytes, "497 MiB"),
    ];
    for (value, unit, text) in table {
        assert_eq!(figure(value, unit), text);
    }
}

#[test]
fn a_ratio_is_ours_divided_by_theirs() {
    assert_eq!(ratio(1.0, 4.0).as_deref(), Some("0.25×"));
    assert_eq!(ratio(3.0, 2.0).as_deref(), Some("1.50×"));
    assert_eq!(ratio(50.0, 4.0).as_deref(), Some("12.5×"));
    assert_eq!(ratio(1.0, 0.0), None);
}

#[test]
fn the_same_seed_gives_the_same_numbers() {
    // The first outputs of splitmix64 for the seed 1234567, from its authors' reference.
    let mut rng = Rng::new(1_234_567);
    assert_eq!([rng.bits(), rng.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
}

#[test]
fn a_shuffle_loses_and_doubles_nothing() {
    let mut items: Vec<usize> = (0..1000).collect();
    Rng::new(1).shuffle(&mut items);
    assert_ne!(items, (0..1000).collect::<Vec<_>>());
    items.sort_unstable();
    assert_eq!(items, (0..1000).collect::<Vec<_>>());
}

#[test]
fn numbers_stay_below_their_limit() {
    let mut rng = Rng::new(5);
    assert!((0..1000).all(|_| rng.below(7) < 7));
    assert_eq!(rng.below(0), 0);
}
