//! What a file says about the machine and the servers around it.

use super::{certificate_file, check, doubts, loaded};

#[test]
fn a_ca_file_is_there_and_holds_certificates() {
    let (good, folder) = certificate_file();
    let with = |path: &str| format!("[providers.openai]\n\nca_file = '{path}'");
    check(&with(good.to_str().unwrap()), &[], &[]);
    check(&with(""), &[], &[]);

    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let cases = [
        (None, "No such file or directory (os error 2)"),
        (Some(""), "no PEM certificate in it"),
        (Some("garbage"), "no PEM certificate in it"),
        (Some(&*key), "no PEM certificate in it"),
        (Some("-----BEGIN CERTIFICATE-----\n"), "not a PEM file"),
        (Some(&"#".repeat(1024 * 1024 + 1)), "it has more than 1048576 bytes"),
    ];
    for (n, (text, what)) in cases.into_iter().enumerate() {
        let path = folder.path().join(n.to_string());
        text.iter().for_each(|text| std::fs::write(&path, text).unwrap());
        check(&with(path.to_str().unwrap()), &[], &[&format!("f:3: providers.openai.ca_file: {what}")]);
    }
    let folder = with(folder.path().to_str().unwrap());
    check(&folder, &[], &["f:3: providers.openai.ca_file: Is a directory (os error 21)"]);
}

#[test]
fn the_addresses_of_the_api_and_of_administration_can_both_be_listened_on() {
    let with = |bind: &str, admin: &str| format!("[server]\nbind = '{bind}'\nadmin_bind = '{admin}'");
    let apart = [
        ("127.0.0.1:8000", "127.0.0.1:8001"),
        ("127.0.0.1:8000", "127.0.0.2:8000"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:80", "[::1]:80"),
        ("127.0.0.1:8000", ""),
    ];
    for (bind, admin) in apart {
        check(&with(bind, admin), &[], &[]);
    }
    let both = [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("10.0.0.1:80", "0.0.0.0:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::1]:80", "[::]:80"),
    ];
    for (bind, admin) in both {
        let what = "f:3: server.admin_bind: bind has this address already; \"\" shares it";
        check(&with(bind, admin), &[], &[what]);
    }
    check(
        "\nserver.admin_bind = '127.0.0.1:8000'",
        &[],
        &["f:2: server.admin_bind: bind has this address already; \"\" shares it"],
    );
}

#[test]
fn a_silence_that_is_usual_at_a_provider_does_not_cut_its_answers() {
    let idle_ms = |toml: &str| loaded(toml, &[]).providers["openai"].idle_timeout_ms;
    assert_eq!(idle_ms(""), 30_000);
    assert_eq!(idle_ms("providers.openai.dialect = 'openai_responses'"), 90_000);

    let with = |ms: u32| format!("[providers.openai]\ndialect = 'openai_responses'\nidle_timeout_ms = {ms}");
    for ms in [1, 30_000] {
        let doubt = "f:3: providers.openai.idle_timeout_ms: openai_responses tells every 30000 ms that it still thinks: \
                     such answers will be cut";
        assert_eq!(doubts(&with(ms)), [doubt]);
        assert_eq!(idle_ms(&with(ms)), u64::from(ms));
    }
    assert_eq!(doubts(&with(30_001)), [""; 0]);
    assert_eq!(doubts("[providers.openai]\nidle_timeout_ms = 1000"), [""; 0]);
}
