//! Prices of Nexmark: many small ones, few large ones.

use crate::random::high_below;

/// Steps of the table of prices; the error of going straight between two of them is 0.002 %.
const PRICE_STEPS: usize = 1024;
/// 10^(6 / 1024): the factor from one step to the next.
const PRICE_FACTOR: f64 = 1.013_583_133_334_065_7;

/// Prices: 100 · 10^x with x even between 0 and 6.
///
/// A table instead of `powf`: faster, and the same on every machine, whose mathematical libraries differ in the last bit.
#[derive(Debug, Clone)]
pub(super) struct Prices(Box<[f64]>);

impl Prices {
    pub(super) fn new() -> Self {
        let steps = std::iter::successors(Some(100.0), |price| Some(price * PRICE_FACTOR));
        Prices(steps.take(PRICE_STEPS + 1).collect())
    }

    #[inline]
    pub(super) fn at(&self, draw: u64) -> i64 {
        let step = high_below(draw, PRICE_STEPS as u64) as usize;
        let between = (draw & 0xffff_ffff) as f64 / 4_294_967_296.0;
        let (from, to) = (self.0[step], self.0[step + 1]);
        (from + (to - from) * between + 0.5) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::draw;

    #[test]
    fn prices_span_six_powers_of_ten_evenly() {
        let prices = Prices::new();
        assert_eq!(prices.at(0), 100);
        let last = prices.0[PRICE_STEPS];
        assert!((last - 1e8).abs() < 1.0, "{last}");
        let below_1000 = (0..10_000).filter(|n| prices.at(draw(1, *n)) < 1_000).count();
        assert!((1_500..1_830).contains(&below_1000), "a sixth of all: {below_1000}");
    }
}
