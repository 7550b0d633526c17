//! Which room of `src` uses which: `tests/arrows.txt`, held against the code.
//!
//! A room is a folder or a file right below `src`; `lib.rs`, `main.rs` and `bin`, which are above them all, are none. What only
//! tests compile does not count.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    str::FromStr,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file as a module: `decide/memory/mod.rs` is `["decide", "memory"]`.
type Module = Vec<String>;

/// One path in the code, such as that of a `use`.
#[derive(Debug)]
struct Import {
    /// Its names, the first of which may be `crate`, `super`, `self` or a child of the module.
    path: Vec<String>,
    line: usize,
    /// What a `use` calls it here.
    name: Option<String>,
    /// `pub use` of any kind.
    exported: bool,
}

/// What a file says: its paths, and the names that occur outside of `use`.
#[derive(Debug, Default)]
struct File {
    shown: String,
    imports: Vec<Import>,
    names: BTreeSet<String>,
}

impl File {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(hash) if hash.as_char() == '#' && is_for_tests(tokens.get(at + 1)) => {
                    at += tokens[at..].iter().position(ends_item).unwrap_or(tokens.len());
                }
                TokenTree::Group(group) => self.read(group.stream()),
                TokenTree::Ident(word) if word == "use" => {
                    let end = at
                        + tokens[at..]
                            .iter()
                            .position(|token| is_punct(token, ";"))
                            .unwrap();
                    let exported = at > 0 && is_visibility(&tokens[at - 1]);
                    self.read_use(&tokens[at + 1..end], &[], exported);
                    at = end;
                }
                TokenTree::Ident(word) => {
                    let before = &tokens[..at];
                    let mut path = vec![word.to_string()];
                    while let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                        && is_separator(&tokens[..at + 3])
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    let is_part =
                        is_separator(before) || before.last().is_some_and(|before| is_punct(before, "."));
                    let is_declared = before.last().is_some_and(|before| before.to_string() == "mod");
                    if !is_part && !is_declared {
                        self.names.insert(path[0].clone());
                        let line = word.span().start().line;
                        if path.len() > 1 {
                            self.imports.push(Import {
                                path,
                                line,
                                name: None,
                                exported: false,
                            });
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The paths of `a::{b, c::{self, d as e}}`.
    fn read_use(&mut self, tokens: &[TokenTree], before: &[String], exported: bool) {
        let mut path = before.to_vec();
        let mut name = None;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for branch in inside
                        .split(|token| is_punct(token, ","))
                        .filter(|branch| !branch.is_empty())
                    {
                        self.read_use(branch, &path, exported);
                    }
                    return;
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) if word == "as" => name = tokens.get(at + 1).map(ToString::to_string),
                TokenTree::Ident(word) if name.is_none() => path.push(word.to_string()),
                _ => {}
            }
        }
        let line = tokens[0].span().start().line;
        let name = name.or_else(|| path.last().cloned());
        self.imports.push(Import {
            path,
            line,
            name,
            exported,
        });
    }
}

fn is_punct(token: &TokenTree, any: &str) -> bool {
    matches!(token, TokenTree::Punct(punct) if any.contains(punct.as_char()))
}

/// Whether the tokens end in `::`.
fn is_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [.., first, second] if is_punct(first, ":") && is_punct(second, ":"))
}

fn is_visibility(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(word) => word == "pub",
        TokenTree::Group(group) => group.delimiter() == Delimiter::Parenthesis,
        _ => false,
    }
}

fn is_for_tests(attribute: Option<&TokenTree>) -> bool {
    attribute.is_some_and(|attribute| attribute.to_string().replace(' ', "") == "[cfg(test)]")
}

fn ends_item(token: &TokenTree) -> bool {
    is_punct(token, ";") || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

fn read_folder(dir: &Path, module: &Module, into: &mut BTreeMap<Module, File>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let child = [module.as_slice(), std::slice::from_ref(&stem)].concat();
        let is_above_all = module.is_empty() && matches!(&*stem, "lib" | "main" | "bin");
        if is_above_all {
            continue;
        }
        if path.is_dir() {
            read_folder(&path, &child, into);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && stem != "tests"
            && !stem.ends_with("_tests")
        {
            let mut file = File {
                shown: path
                    .strip_prefix(env!("CARGO_MANIFEST_DIR"))
                    .unwrap()
                    .display()
                    .to_string(),
                ..File::default()
            };
            file.read(TokenStream::from_str(&fs::read_to_string(&path).unwrap()).unwrap());
            into.insert(if stem == "mod" { module.clone() } else { child }, file);
        }
    }
}

struct Tree(BTreeMap<Module, File>);

impl Tree {
    /// A path from the root of the crate, if it is one into the crate.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut at = from.clone();
        let mut rest = path;
        match &*path[0] {
            "crate" => {
                at.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            child => {
                let is_child = self
                    .0
                    .contains_key(&[from.as_slice(), &[child.to_owned()]].concat());
                if !is_child {
                    return None;
                }
            }
        }
        at.extend_from_slice(rest);
        Some(at)
    }

    /// The file that defines what a path from the root leads to, through the names that modules give to others' things.
    fn defined_in(&self, path: &[String], steps: usize) -> Module {
        let mut at = 0;
        while at < path.len() && self.0.contains_key(&path[..=at]) {
            at += 1;
        }
        let module = path[..at].to_vec();
        let Some((name, file)) = path.get(at).zip(self.0.get(&module)) else {
            return module;
        };
        let named = file
            .imports
            .iter()
            .find(|import| import.name.as_ref() == Some(name));
        match named.and_then(|import| self.absolute(&module, &import.path)) {
            Some(target) if steps > 0 => self.defined_in(&[&target, &path[at + 1..]].concat(), steps - 1),
            _ => module,
        }
    }

    /// Which file of a room imports which other of it, and by what first.
    fn arrows_inside(&self, room: &str) -> BTreeMap<(&Module, Module), &Import> {
        let mut arrows = BTreeMap::new();
        for (module, file) in self.0.iter().filter(|(module, _)| module[0] == room) {
            for import in &file.imports {
                let Some(target) = self.absolute(module, &import.path) else {
                    continue;
                };
                let target = self.defined_in(&target, 8);
                // A name that is only re-exported from a child is no dependency on the child.
                let passed_on = import.exported
                    && target.starts_with(module)
                    && !import.name.as_ref().is_some_and(|name| file.names.contains(name));
                if target != *module && target.first().is_some_and(|first| first == room) && !passed_on {
                    arrows.entry((module, target)).or_insert(import);
                }
            }
        }
        arrows
    }
}

/// The rooms from top to bottom, each with those it may use.
fn allowed() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arrows.txt")).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (room, used) = line.split_once("->").unwrap();
            (
                room.trim().to_owned(),
                used.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect()
}

#[test]
fn arrows_between_rooms_and_inside_them_point_one_way() {
    let mut tree = Tree(BTreeMap::new());
    read_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &Vec::new(),
        &mut tree.0,
    );
    let allowed = allowed();
    let rooms: BTreeSet<&String> = tree.0.keys().map(|module| &module[0]).collect();
    let mut wrong = Vec::new();

    for (at, (room, used)) in allowed.iter().enumerate() {
        if !rooms.contains(room) {
            wrong.push(format!("tests/arrows.txt: there is no room `{room}`"));
        }
        for other in used
            .iter()
            .filter(|other| !allowed[at + 1..].iter().any(|(below, _)| below == *other))
        {
            wrong.push(format!("tests/arrows.txt: `{other}` is not below `{room}`"));
        }
    }
    for room in &rooms {
        if !allowed.iter().any(|(listed, _)| listed == *room) {
            wrong.push(format!("tests/arrows.txt: `{room}` is missing"));
        }
    }
    for (module, file) in &tree.0 {
        for import in &file.imports {
            let Some(target) = tree.absolute(module, &import.path) else {
                continue;
            };
            let may = allowed
                .iter()
                .find(|(room, _)| *room == module[0])
                .map(|(_, used)| used);
            if let (Some(other), Some(may)) = (target.first(), may)
                && *other != module[0]
                && rooms.contains(other)
                && !may.contains(other)
            {
                let (shown, line, path) = (&file.shown, import.line, target.join("::"));
                wrong.push(format!(
                    "{shown}:{line}: uses `{path}`, and `{}` may not use `{other}`",
                    module[0]
                ));
            }
        }
    }
    for room in rooms {
        let arrows = tree.arrows_inside(room);
        for ((from, to), import) in &arrows {
            let (mut reached, mut ahead) = (BTreeSet::new(), vec![to]);
            while let Some(next) = ahead.pop() {
                if reached.insert(next) {
                    ahead.extend(
                        arrows
                            .keys()
                            .filter(|(one, _)| *one == next)
                            .map(|(_, other)| other),
                    );
                }
            }
            if reached.contains(from) {
                let (shown, line, path) = (&tree.0[*from].shown, import.line, import.path.join("::"));
                let other = &tree.0[to].shown;
                wrong.push(format!(
                    "{shown}:{line}: uses `{path}` of {other}, which leads back here: a circle"
                ));
            }
        }
    }
    wrong.sort_unstable();
    assert!(
        wrong.is_empty(),
        "{} arrows that may not be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
