//! How many calls are under way at a time.

use std::time::{Duration, Instant};

/// At first. A put takes AWS some ten milliseconds, so these are some hundred a second.
const FIRST: f64 = 16.0;
/// At most: at 512 KiB each, 32 MiB of memory. More would only reach AWS's 1,000 puts a second sooner.
const MOST: f64 = 64.0;
/// The first pause after a refusal, and the longest after many: AWS counts by the second.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// One more at a time while all goes well, half as many when there were too many: as TCP finds its window.
pub(super) struct Window {
    size: f64,
    /// Calls that were made under the same window share a generation: if ten of them are refused, that is one sign
    /// and not ten.
    generation: u32,
    /// Refused generations since something was accepted.
    refused: u32,
    closed_until: Option<Instant>,
}

impl Window {
    pub fn new() -> Self {
        Self { size: FIRST, generation: 0, refused: 0, closed_until: None }
    }

    /// How many calls may be under way now.
    pub fn size(&self) -> usize {
        match self.closed_until {
            Some(until) if Instant::now() < until => 0,
            _ => self.size as usize,
        }
    }

    /// What a call that is made now belongs to.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A call was carried out.
    pub fn accepted(&mut self, generation: u32) {
        if generation == self.generation {
            self.size = (self.size + 1.0 / self.size).min(MOST);
            self.refused = 0;
        }
    }

    /// A call was not carried out, and may be later.
    pub fn refused(&mut self, generation: u32) {
        if generation == self.generation {
            self.size = (self.size / 2.0).max(1.0);
            self.generation += 1;
            let pause = (PAUSE * 2_u32.saturating_pow(self.refused)).min(LONGEST);
            // Two runs that were refused at once should not come back at once.
            self.closed_until = Some(Instant::now() + pause.mul_f64(0.5 + fastrand::f64() / 2.0));
            self.refused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size, whether it is closed at the moment or not.
    fn size(window: &Window) -> usize {
        window.size as usize
    }

    #[test]
    fn it_grows_by_one_for_each_windowful_up_to_a_limit() {
        let mut window = Window::new();
        (0..17).for_each(|_| window.accepted(0));
        assert_eq!(size(&window), 17);
        (0..10_000).for_each(|_| window.accepted(0));
        assert_eq!(size(&window), 64);
    }

    #[test]
    fn many_refusals_of_one_windowful_halve_it_once() {
        let mut window = Window::new();
        (0..16).for_each(|_| window.refused(0));
        assert_eq!(size(&window), 8);
        assert_eq!(window.size(), 0, "it is closed for a while");
        // What was under way before tells nothing of the smaller window.
        window.accepted(0);
        assert_eq!((size(&window), window.refused), (8, 1));
        (1..10).for_each(|generation| window.refused(generation));
        assert_eq!(size(&window), 1);
        assert!(window.closed_until.unwrap() <= Instant::now() + LONGEST);
    }
}
