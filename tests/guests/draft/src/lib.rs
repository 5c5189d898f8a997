//! Uses `wasi:keyvalue` under the older of its two names, as plugins of other hosts do, and fails with what it was answered.

wit_bindgen::generate!({
    path: ["../../../wit/compat/keyvalue-draft", "../../../wit"],
    inline: "
        package test:draft;
        world draft {
            include tidegate:plugin/consumer@0.1.0;
            import wasi:keyvalue/store@0.2.0-draft;
            import wasi:keyvalue/atomics@0.2.0-draft;
            import wasi:keyvalue/batch@0.2.0-draft;
        }
    ",
    world: "test:draft/draft",
    generate_all,
});

use exports::tidegate::plugin::handler::{Event, Failure, Guest};
use wasi::keyvalue0_2_0_draft::{atomics, batch, store};

struct Plugin;

impl Guest for Plugin {
    fn handle(_event: Event) -> Result<(), Failure> {
        let bucket = store::open("").unwrap();
        bucket.set("z", b"1").unwrap();
        let count = atomics::increment(&bucket, "n", 2);
        let large = atomics::increment(&bucket, "n", u64::MAX);
        let negative = atomics::increment(&bucket, "below", 1);
        batch::delete_many(&bucket, &["k0000".to_owned()]).unwrap();
        let found = bucket.exists("k0000");
        let (mut pages, mut keys, mut cursor) = (0, 0, None);
        loop {
            let page = bucket.list_keys(cursor).unwrap();
            pages += 1;
            keys += page.keys.len();
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let beyond = bucket.list_keys(Some(99)).map(|page| page.keys.len());
        Err(Failure::Permanent(format!(
            "{count:?} {large:?} {negative:?} {found:?} {pages} {keys} {beyond:?}"
        )))
    }
}

export!(Plugin);
