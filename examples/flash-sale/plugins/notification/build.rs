//! Gives the component 2 MiB of memory from the start: asking for more while an event is handled costs more than the handling.
//! A plugin that needs more still gets it, up to its consumer's `limits.memory`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--initial-memory=2097152");
    }
}
