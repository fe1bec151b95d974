//! From residuals to samples: each sample is a guess from those before it, and what the guess misses.
//!
//! Residuals stand where their samples will; the first `order` samples are given as they are. Arithmetic wraps: sound
//! streams never get there, and no sum needs more than its low bits unless it is shifted.

/// A sample: 32 bits, or 33 in the difference of two channels of 32.
pub(super) trait Sample: Copy + Default {
    /// Cuts off what does not fit.
    fn from_wide(value: i64) -> Self;
    /// All of it.
    fn wide(self) -> i64;
    /// Adds the guesses of a linear predictor: `coefficients`, the one of the latest sample first, and a shift.
    fn predict(samples: &mut [Self], predictor: Predictor<'_>);
}

/// A linear predictor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Predictor<'a> {
    /// Factors of earlier samples, that of the latest one first; at most 32.
    pub(super) coefficients: &'a [i32],
    /// By how many bits the sum is shifted right, below 16.
    pub(super) shift: u32,
    /// Whether 32 bits hold every sum.
    pub(super) is_narrow: bool,
}

impl Sample for i32 {
    #[expect(clippy::cast_possible_truncation, reason = "wrapping is what is asked for")]
    fn from_wide(value: i64) -> Self {
        value as Self
    }

    fn wide(self) -> i64 {
        i64::from(self)
    }

    fn predict(samples: &mut [Self], predictor: Predictor<'_>) {
        match (predictor.is_narrow, predictor.coefficients.len()) {
            (true, 0..=4) => narrow::<4>(samples, predictor),
            (true, 5..=8) => narrow::<8>(samples, predictor),
            (true, 9..=12) => narrow::<12>(samples, predictor),
            (true, _) => narrow::<32>(samples, predictor),
            (false, 0..=4) => wide::<4>(samples, predictor),
            (false, 5..=8) => wide::<8>(samples, predictor),
            (false, 9..=12) => wide::<12>(samples, predictor),
            (false, _) => wide::<32>(samples, predictor),
        }
    }
}

impl Sample for i64 {
    fn from_wide(value: i64) -> Self {
        value
    }

    fn wide(self) -> i64 {
        self
    }

    fn predict(samples: &mut [Self], predictor: Predictor<'_>) {
        slow(samples, predictor, usize::MAX);
    }
}

/// The same for the fixed predictors: no shift, and therefore the low bits suffice.
pub(super) fn fixed<S: Sample>(samples: &mut [S], order: usize) {
    let coefficients: &[i32] = match order {
        0 => return,
        1 => &[1],
        2 => &[2, -1],
        3 => &[3, -3, 1],
        _ => &[4, -6, 4, -1],
    };
    S::predict(samples, Predictor { coefficients, shift: 0, is_narrow: true });
}

/// The coefficients in the order of the samples, with zeros before them.
fn spread<const N: usize>(coefficients: &[i32]) -> [i32; N] {
    let mut spread = [0; N];
    spread.iter_mut().rev().zip(coefficients).for_each(|(to, from)| *to = *from);
    spread
}

fn narrow<const N: usize>(samples: &mut [i32], predictor: Predictor<'_>) {
    slow(samples, predictor, N);
    let factors = spread::<N>(predictor.coefficients);
    for at in N..samples.len() {
        let Some((before, [sample, ..])) = samples.split_at_mut_checked(at) else { return };
        let Some(window) = before.last_chunk::<N>() else { return };
        let products = window.iter().zip(&factors).map(|(sample, factor)| sample.wrapping_mul(*factor));
        let sum = products.fold(0_i32, i32::wrapping_add);
        *sample = sample.wrapping_add(sum >> predictor.shift);
    }
}

fn wide<const N: usize>(samples: &mut [i32], predictor: Predictor<'_>) {
    slow(samples, predictor, N);
    let factors = spread::<N>(predictor.coefficients).map(i64::from);
    for at in N..samples.len() {
        let Some((before, [sample, ..])) = samples.split_at_mut_checked(at) else { return };
        let Some(window) = before.last_chunk::<N>() else { return };
        let products = window.iter().zip(&factors).map(|(sample, factor)| i64::from(*sample) * factor);
        let sum = products.fold(0_i64, i64::wrapping_add);
        *sample = sample.wrapping_add(i32::from_wide(sum >> predictor.shift));
    }
}

/// Predicts the samples before `end`, of any width.
fn slow<S: Sample>(samples: &mut [S], predictor: Predictor<'_>, end: usize) {
    for at in predictor.coefficients.len()..samples.len().min(end) {
        let Some((before, [sample, ..])) = samples.split_at_mut_checked(at) else { return };
        let products = before.iter().rev().zip(predictor.coefficients);
        let products = products.map(|(sample, factor)| sample.wide().wrapping_mul(i64::from(*factor)));
        let sum = products.fold(0_i64, i64::wrapping_add);
        *sample = S::from_wide(sample.wide().wrapping_add(sum >> predictor.shift));
    }
}
