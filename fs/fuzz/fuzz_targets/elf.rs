#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| g8_fs_fuzz::fuzz_elf(data));
