//! What a start finds: a lock, a newer format, damage of every kind, a write that was cut off, a clean stop, a crash.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

/// The first of a file: the journals of these tests use little of their 64 MiB.
fn read_used(file: &PathBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(file).unwrap().take(1 << 16).read_to_end(&mut bytes).unwrap();
    bytes
}

/// The byte at which the last of something begins in a file.
fn find_last(file: &PathBuf, what: &[u8]) -> usize {
    let bytes = read_used(file);
    bytes.windows(what.len()).rposition(|window| window == what).unwrap()
}

fn flip(file: &PathBuf, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at as u64).unwrap();
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let refused = folder.open().map(|_| ());
    assert!(matches!(refused, Err(Error::Locked(_))), "{refused:?}");
    store.close().await.unwrap();
    folder.open().unwrap();
}

#[tokio::test]
async fn a_stop_is_clean_only_after_close() {
    let folder = Folder::new();
    let mut was_unclean = Vec::new();
    for closes in [true, false, false, true, true] {
        let store = folder.open().unwrap();
        was_unclean.push(store.was_unclean());
        remember(&store, 1).await.unwrap();
        if closes {
            store.close().await.unwrap();
        }
    }
    assert_eq!(was_unclean, [false, false, true, true, false]);
}

#[tokio::test]
async fn another_format_is_refused() {
    let folder = Folder::with_records(1, true).await;
    let file = folder.path().join("tidegate-store");
    let text = fs::read_to_string(&file).unwrap();
    let refusal = |format: &str| {
        fs::write(&file, text.replace("format 2", format)).unwrap();
        folder.open().map(|_| ()).unwrap_err()
    };
    let newer = refusal("format 3");
    assert!(matches!(newer, Error::Newer { found: 3, known: 2, .. }), "{newer}");
    let older = refusal("format 1");
    assert!(matches!(older, Error::Older { found: 1, known: 2, .. }), "{older}");
    assert!(older.to_string().contains("run the version that wrote it"), "{older}");
    fs::write(&file, text).unwrap();
    assert!(remembers(&folder.open().unwrap(), 1));
}

#[tokio::test]
async fn a_folder_of_something_else_is_refused_untouched() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path()).unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    assert!(folder.refusal().contains("not empty"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_missing_is_never_made_anew() {
    let missing = [
        "tidegate-store",
        "database",
        "database/version",
        "database/0.jnl",
        "database/keyspaces",
        "database/keyspaces/0",
        "database/keyspaces/1",
        "database/keyspaces/9",
        "database/keyspaces/10",
    ];
    for (number, what) in missing.iter().enumerate() {
        let folder = Folder::with_records(3, number % 2 == 0).await;
        let path = folder.path().join(what);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let first = folder.refusal();
        assert!(first.contains("damaged"), "{what}: {first}");
        // Nor at the second try.
        folder.refusal();
    }
}

#[tokio::test]
async fn a_garbled_state_file_is_refused() {
    for text in [
        "",
        "tidegate store\n",
        "tidegate store\nformat 2\nclosed x\n",
        "x\nformat 2\nopen\n",
    ] {
        let folder = Folder::with_records(1, true).await;
        fs::write(folder.path().join("tidegate-store"), text).unwrap();
        assert!(folder.refusal().contains("garbled"));
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_journal_is_refused() {
    // In the row of the second of four batches: its key, and the tag before it, 22 bytes earlier.
    for back in [0, 21] {
        for clean in [true, false] {
            let folder = Folder::with_records(4, clean).await;
            let before = read_used(&folder.journal());
            let at = find_last(&folder.journal(), &key(2)) - back;
            flip(&folder.journal(), at);
            let refusal = folder.refusal();
            assert!(refusal.contains("0.jnl"), "{refusal}");
            folder.refusal();
            // Nothing was changed: flipped back, all is there.
            flip(&folder.journal(), at);
            assert_eq!(read_used(&folder.journal()), before);
            let store = folder.open().unwrap();
            assert!((1..=4).all(|number| remembers(&store, number)));
        }
    }
}

#[tokio::test]
async fn after_a_clean_stop_a_journal_that_ends_early_is_refused() {
    let folder = Folder::with_records(4, true).await;
    let cut = find_last(&folder.journal(), &key(3));
    let file = OpenOptions::new().write(true).open(folder.journal()).unwrap();
    file.set_len(cut as u64).unwrap();
    folder.refusal();
    // Even where it ends between two batches, so that it looks whole.
    let start = find_start(&folder.journal(), cut);
    file.set_len(start as u64).unwrap();
    let refusal = folder.refusal();
    assert!(refusal.contains("closed at"), "{refusal}");
}

/// Where the batch begins that has byte `within` in it.
fn find_start(file: &PathBuf, within: usize) -> usize {
    let bytes = read_used(file);
    let end = bytes[..within].windows(4).rposition(|window| window == b"FJL\x03");
    end.unwrap() + 4
}

#[tokio::test]
async fn a_write_that_was_cut_off_is_dropped_and_the_rest_is_there() {
    let folder = Folder::with_records(4, false).await;
    let at = find_last(&folder.journal(), &key(4));
    let start = find_start(&folder.journal(), at);
    let whole = read_used(&folder.journal());
    let end = at + 100;
    // Cut short at every byte, and with a hole of zeros, as a power cut may leave it.
    for cut in (start + 1..at + 20).step_by(7) {
        let mut torn = whole.clone();
        torn.truncate(cut);
        fs::write(folder.journal(), torn).unwrap();
        check_torn(&folder);
        let mut holed = whole.clone();
        holed[cut..at + 20].fill(0);
        holed.truncate(end);
        fs::write(folder.journal(), holed).unwrap();
        check_torn(&folder);
    }
}

fn check_torn(folder: &Folder) {
    let store = folder.open().unwrap();
    assert!((1..=3).all(|number| remembers(&store, number)));
    assert!(!remembers(&store, 4));
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_begins_again() {
    let folder = Folder::new();
    fs::create_dir_all(folder.path().join("database")).unwrap();
    File::create(folder.path().join("database/0.jnl")).unwrap();
    fs::write(folder.path().join("tidegate-store"), "tidegate store\nformat 2\nnew\n").unwrap();
    remember(&folder.open().unwrap(), 1).await.unwrap();
    assert!(remembers(&folder.open().unwrap(), 1));
}

/// Waits until what is remembered has been read: then, and not before, an id that nobody wrote is known to be new without a look at the disk.
#[tokio::test]
async fn after_a_start_ids_are_read_into_memory_while_more_are_written() {
    let folder = Folder::with_records(40, true).await;
    let store = folder.open().unwrap();
    for number in 41..=60 {
        remember(&store, number).await.unwrap();
    }
    let are_read = async {
        while store.read(|tables| Ok(tables.may_hold(key(0)))).unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), are_read).await.unwrap();
    let may_hold = |number| store.read(|tables| Ok(tables.may_hold(key(number)))).unwrap();
    assert!((1..=60).all(|number| may_hold(number) && remembers(&store, number)));
    assert!(!(61..=255).any(may_hold));
}
