//! Whatever a template holds, reading it ends with what it says or with one message.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = imager::read_template(text) {
        assert!(!error.to_string().is_empty());
    }
});
