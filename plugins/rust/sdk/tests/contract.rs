//! The contract that this crate carries is the project's.

use std::fs;
use std::path::Path;

#[test]
fn contract_is_that_of_the_project() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = here.join("../../../wit");
    if !project.exists() {
        return; // The crate outside its repository.
    }
    let mut compared = 0;
    for file in fs::read_dir(here.join("wit/deps/tidegate-plugin")).unwrap() {
        let file = file.unwrap();
        let ours = fs::read_to_string(file.path()).unwrap();
        let theirs = fs::read_to_string(project.join(file.file_name())).unwrap();
        assert!(ours == theirs, "{:?} differs: copy it from wit/", file.file_name());
        compared += 1;
    }
    assert_eq!(compared, 5, "a file was added to the contract or removed from the copy");
}
