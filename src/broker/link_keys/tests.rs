use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::auth::fitness;

const NOW: Now = Now { mono_ms: 0, unix_ms: 1_767_225_600_000 };
const UNTIL: u64 = 1_767_830_400;
const YEAR_MS: u64 = 366 * 86_400_000;

fn open(data: &TempDir) -> LinkKeys {
    LinkKeys::open(data.path(), "berlin").unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_pair_is_made_at_first_need_for_its_owner_only_and_stays() {
    let data = tempfile::tempdir().unwrap();
    let keys = open(&data);
    assert!(keys.current().is_none() && names(data.path()).is_empty(), "nothing is made by looking");
    assert!(LinkKeys::look(data.path()).unwrap().is_none());
    let made = keys.ensure(NOW).unwrap();
    let folder = data.path().join("link");
    assert_eq!((mode(&folder), names(&folder)), (0o700, vec!["cert.pem".to_owned(), "key.pem".to_owned()]));
    assert_eq!((mode(&folder.join("key.pem")), mode(&folder.join("cert.pem"))), (0o600, 0o600));
    assert_eq!(fitness::read(made.der()).unwrap().subject().to_string(), "CN=berlin");
    assert_eq!(keys.ensure(NOW).unwrap().fingerprint(), made.fingerprint());
    let again = open(&data);
    assert_eq!(again.current().unwrap().fingerprint(), made.fingerprint());
    assert_eq!(LinkKeys::look(data.path()).unwrap().unwrap().fingerprint(), made.fingerprint());
    assert_eq!(fs::read_to_string(folder.join("cert.pem")).unwrap(), made.pem());
    assert!(again.warnings().is_empty());
}

#[test]
fn what_was_interrupted_is_finished_by_the_next_start() {
    for (cut, files) in [("before its key", 0), ("before its certificate", 1), ("before it was tidied", 2)] {
        let data = tempfile::tempdir().unwrap();
        let keys = open(&data);
        keys.ensure(NOW).unwrap();
        let next = keys.prepare_next(NOW, UNTIL).unwrap();
        let folder = data.path().join("link");
        let pending = fs::read_to_string(folder.join("next.pem")).unwrap();
        let pair = Pair::from_pem(&pending, &pending).unwrap();
        if files >= 1 {
            fs::write(folder.join("key.pem"), pair.key.pem().as_bytes()).unwrap();
        }
        if files == 2 {
            fs::write(folder.join("cert.pem"), next.pem()).unwrap();
        }
        let current = LinkKeys::look(data.path()).unwrap().unwrap().fingerprint();
        assert_eq!(current == next.fingerprint(), files > 0, "{cut}");
        let again = open(&data);
        assert_eq!(again.current().unwrap().fingerprint(), current, "{cut}");
        assert_eq!(again.next().is_some(), files == 0, "{cut}");
        assert_eq!(folder.join("next.pem").exists(), files == 0, "{cut}");
        assert_eq!(open(&data).current().unwrap().fingerprint(), current, "{cut}");
    }
}

#[test]
fn a_rotation_is_prepared_once_and_then_finished_or_given_up() {
    let data = tempfile::tempdir().unwrap();
    let keys = open(&data);
    let first = keys.ensure(NOW).unwrap();
    assert!(matches!(keys.promote(), Err(LinkKeysError::NotRotating)));
    assert!(matches!(keys.abandon_next(), Err(LinkKeysError::NotRotating)));
    let given_up = keys.prepare_next(NOW, UNTIL).unwrap();
    assert_eq!(keys.prepare_next(NOW, UNTIL).unwrap().fingerprint(), given_up.fingerprint());
    assert_eq!(mode(&data.path().join("link/next.pem")), 0o600);
    assert_eq!(open(&data).next().unwrap().fingerprint(), given_up.fingerprint());
    keys.abandon_next().unwrap();
    assert!(keys.next().is_none() && open(&data).next().is_none());
    let next = keys.prepare_next(NOW.plus_ms(1), UNTIL).unwrap();
    assert_ne!(next.fingerprint(), given_up.fingerprint());
    assert_eq!(keys.current().unwrap().fingerprint(), first.fingerprint(), "until it is promoted");
    keys.promote().unwrap();
    for keys in [&keys, &open(&data)] {
        assert_eq!(keys.current().unwrap().fingerprint(), next.fingerprint());
        assert!(keys.next().is_none());
    }
}

#[test]
fn an_imported_pair_takes_the_place_of_ours_if_it_is_good_enough() {
    let data = tempfile::tempdir().unwrap();
    let keys = open(&data);
    keys.ensure(NOW).unwrap();
    let foreign = Pair::make("from elsewhere", NOW).unwrap();
    let text = foreign.pem();
    keys.prepare_next(NOW, UNTIL).unwrap();
    assert!(matches!(keys.import(&text, &text, NOW), Err(LinkKeysError::Rotating)));
    keys.abandon_next().unwrap();
    for (certificates, now, reason) in [
        (text.as_str(), NOW.plus_ms(YEAR_MS), "expired"),
        (&*text, Now { unix_ms: 0, ..NOW }, "not valid yet"),
        (&*keys.current().unwrap().pem(), NOW, "does not belong"),
    ] {
        let error = keys.import(certificates, &text, now).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let imported = keys.import(&text, &text, NOW).unwrap();
    assert_eq!(imported.der(), &*foreign.chain[0]);
    assert_eq!(open(&data).current().unwrap().fingerprint(), imported.fingerprint());
    assert_eq!(names(&data.path().join("link")), ["cert.pem", "key.pem"]);
}

#[test]
fn half_a_pair_is_an_error_that_says_what_to_do() {
    for (gone, there) in [("key.pem", "cert.pem"), ("cert.pem", "key.pem")] {
        let data = tempfile::tempdir().unwrap();
        open(&data).ensure(NOW).unwrap();
        fs::remove_file(data.path().join("link").join(gone)).unwrap();
        let error = LinkKeys::open(data.path(), "berlin").unwrap_err().to_string();
        let wanted = format!(
            "{}: it is there without {gone}: put that back, or",
            data.path().join("link").join(there).display()
        );
        assert!(error.starts_with(&wanted), "{error}");
    }
}

#[test]
fn files_that_are_no_good_are_named() {
    let stranger = Pair::make("a", NOW).unwrap();
    let long = " ".repeat(64 * 1024 + 1);
    for (name, text, reason) in [
        ("key.pem", stranger.key.pem().as_str(), "does not belong"),
        ("key.pem", "", "no private key"),
        ("cert.pem", "", "no certificate"),
        ("cert.pem", &*long, "longer than 65536 bytes"),
        ("next.pem", &*stranger.key.pem(), "no certificate"),
    ] {
        let data = tempfile::tempdir().unwrap();
        open(&data).ensure(NOW).unwrap();
        let path = data.path().join("link").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = LinkKeys::open(data.path(), "berlin").unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", path.display())) && error.contains(reason), "{error}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_refused_and_one_of_a_group_is_warned_of() {
    let data = tempfile::tempdir().unwrap();
    open(&data).ensure(NOW).unwrap();
    let path = data.path().join("link/key.pem");
    let open_to = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    open_to(0o604);
    assert!(matches!(LinkKeys::open(data.path(), "berlin"), Err(LinkKeysError::Exposed(_))));
    open_to(0o640);
    assert_eq!(
        open(&data).warnings(),
        [format!("{}: it is open to its group: chmod 600 it", path.display())]
    );
}
