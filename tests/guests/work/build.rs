//! Gives the component 1.25 MiB of memory from the start: 1 MiB of stack and some 200 KiB for data. A guest that asks for more
//! while it handles an event makes the host change page tables, which costs more than handling a small event does. Whoever needs
//! more still gets it, up to the consumer's `limits.memory`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo::rustc-link-arg-cdylib=--initial-memory=1310720");
    }
}
