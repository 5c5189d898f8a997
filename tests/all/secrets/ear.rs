//! Listens to all that a host says, for secrets in whatever form a careless program would say them.

use std::path::Path;

use tidegate_tests::host::Said;

/// What was said, and where.
#[derive(Default)]
pub(super) struct Ear(Vec<(String, Vec<u8>)>);

impl Ear {
    pub(super) fn hear(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    pub(super) fn hear_command(&mut self, args: &[&str], said: Said) {
        let place = args.join(" ");
        self.hear(format!("stdout of {place}"), said.stdout);
        self.hear(format!("stderr of {place}"), said.stderr);
    }

    /// Every file below a folder, but those that secrets were put into.
    pub(super) fn hear_files(&mut self, folder: &Path, except: &[&str]) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if except.contains(&name) {
                continue;
            }
            if path.is_dir() {
                self.hear_files(&path, except);
            } else {
                self.hear(format!("file {}", path.display()), std::fs::read(&path).unwrap());
            }
        }
    }

    /// The places where a text was said.
    pub(super) fn places(&self, text: &str) -> Vec<&str> {
        let forms = forms(text);
        let is_said = |said: &[u8]| forms.iter().any(|form| has(said, form));
        let places = self.0.iter().filter(|(_, said)| is_said(said));
        places.map(|(place, _)| place.as_str()).collect()
    }

    /// # Panics
    /// If one of the secrets was said anywhere.
    pub(super) fn heard_none_of(&self, secrets: &[&str]) {
        let told = secrets.iter().map(|secret| (*secret, self.places(secret)));
        let told: Vec<_> = told.filter(|(_, places)| !places.is_empty()).collect();
        assert!(told.is_empty(), "told: {told:#?}");
    }
}

fn has(said: &[u8], form: &[u8]) -> bool {
    said.windows(form.len()).any(|window| window == form)
}

/// A text as it is, in hex, and within Base64 wherever in it the text begins.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let hex = data_encoding::HEXLOWER.encode(text.as_bytes());
    let within = (0..3).map(|before| {
        let bytes = [&[b'x'; 2][..before], text.as_bytes()].concat();
        let encoded = data_encoding::BASE64.encode(&bytes);
        // Without what depends on the neighbours too.
        let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        encoded.as_bytes()[first..last].to_vec()
    });
    [text.as_bytes().to_vec(), hex.into_bytes()]
        .into_iter()
        .chain(within)
        .collect()
}

#[test]
fn a_secret_is_heard_in_every_form() {
    let mut ear = Ear::default();
    let encode = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    for text in [
        "a secret-canary.",
        "736563726574",
        &encode("secret"),
        &encode("user:secret"),
        &encode("a:secret!"),
    ] {
        ear.hear(text, text);
    }
    ear.hear("nothing", "secre t");
    assert_eq!(ear.places("secret").len(), 5, "{:?}", ear.places("secret"));
}

#[test]
#[should_panic(expected = "told")]
fn a_secret_that_was_told_fails() {
    let mut ear = Ear::default();
    ear.hear("a log", "the password is hunter2");
    ear.heard_none_of(&["opensesame", "hunter2"]);
}
