//! The benchmark's own arithmetic, and that it leaves alone what it did not write.

use graylag_tests::bench::{Options, Spread, Table, replace};

fn parse(arguments: &[&str]) -> Result<Option<Options>, String> {
    let arguments = arguments.iter().map(ToString::to_string);
    Options::parse(arguments, &["programs", "detection"]).map_err(|error| format!("{error:#}"))
}

#[test]
fn figures_go_between_their_markers_and_nowhere_else() {
    let page = "# Title\n\n<!-- bench a -->\nold\n<!-- /bench a -->\n\ntext\n\n<!-- bench b -->\n<!-- /bench b -->\n";
    let new = replace(page, "a", "new\n\n").expect("markers");
    assert_eq!(new, page.replace("\nold\n", "\nnew\n"));
    assert_eq!(replace(&new, "a", "new").expect("markers"), new, "the same again changes nothing");
    assert!(
        replace(&new, "b", "more").expect("markers").contains("<!-- bench b -->\nmore\n<!-- /bench b -->")
    );
    let error = replace(page, "c", "new").expect_err("no marker").to_string();
    assert!(error.starts_with("the marker `<!-- bench c -->` is missing"), "{error}");
}

#[test]
fn the_page_has_a_place_for_every_part() {
    let page = include_str!("../../docs/performance.md");
    for part in graylag_tests::bench::parts() {
        replace(page, part, "new").unwrap_or_else(|error| panic!("docs/performance.md: {error}"));
    }
}

#[test]
fn medians() {
    let of = |values: &[f64]| Spread::of(values).map(|s| (s.n, s.least, s.median, s.most));
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[2.0]), Some((1, 2.0, 2.0, 2.0)));
    assert_eq!(of(&[9.0, 1.0, 2.0]), Some((3, 1.0, 2.0, 9.0)));
    assert_eq!(of(&[9.0, 1.0, 2.0, 4.0]), Some((4, 1.0, 3.0, 9.0)));
}

#[test]
fn tables_are_aligned() {
    let mut table = Table::new(["load", "µs"]);
    table.row(["nothing", "1.5"]);
    table.row(["much", "1,234"]);
    let expected = "| load    |    µs |\n|---------|------:|\n| nothing |   1.5 |\n| much    | 1,234 |\n";
    assert_eq!(table.to_string(), expected);
}

#[test]
fn arguments() {
    let options = parse(&["--markdown", "page.md", "detection"]).expect("valid").expect("not help");
    assert!(options.wants("detection") && !options.wants("programs"));
    assert_eq!(options.command(), "cargo xtask bench -- --markdown page.md detection");
    assert_eq!(parse(&["--help"]), Ok(None));
    let wrong = parse(&["detections"]).expect_err("no part");
    assert_eq!(wrong, "`detections` is neither an option nor a part; parts are programs, detection");
    assert!(parse(&["--quick", "--markdown", "page.md"]).is_err(), "quick figures are not for a document");
}
