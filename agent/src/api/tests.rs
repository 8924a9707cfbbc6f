//! The router over a small ground without servers.
use super::*;

    #[test]
    fn only_loopback_is_served_without_a_token() {
        for listen in ["127.0.0.1:8000", "[::1]:8000", "localhost:80"] {
            assert!(check_listen(listen, false, false).is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:8000", "10.0.0.1:80", "[::]:8000", "example.org:80"] {
            let message = check_listen(listen, false, false).expect_err("a refusal").to_string();
            assert!(message.contains("PLUMBLINE_TOKEN") && message.contains(listen), "{message}");
            assert!(check_listen(listen, true, false).is_ok());
            assert!(check_listen(listen, false, true).is_ok());
        }
    }

    #[test]
    fn the_committed_document_is_the_one_of_the_handlers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let fresh = openapi().to_pretty_json().expect("a document") + "\n";
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        if committed != fresh {
            std::fs::write(path, fresh).expect("the document is written");
            panic!("`agent/openapi.json` was not up to date; it has been written anew, commit it");
        }
    }
