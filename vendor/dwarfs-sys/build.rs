//! Builds the shim with CMake against the installed DwarFS library, writes the declarations of `shim.h`, and passes
//! on what is to be linked.
//!
//! ```text
//! cmake -S shim -B OUT_DIR/shim     finds the package dwarfs; its file API then tells the link line of `probe`
//! cmake --build                     libdwarfs_shim.a
//! bindgen shim.h                    OUT_DIR/shim.rs
//! ```
//!
//! What is missing is told in one sentence that says what to install.

#![expect(clippy::indexing_slicing, reason = "only JSON is indexed: what is not there is null")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// What the feature needs; stands in every refusal.
const NEEDS: &str = "install the C++ library of DwarFS 0.15 or newer with its CMake package \
                     (https://github.com/mhx/dwarfs, built with -DWITH_LIBDWARFS=ON; CMAKE_PREFIX_PATH names another \
                     prefix than the usual ones), cmake, a C++23 compiler and libclang";

/// The words of shim/CMakeLists.txt where the package is not there.
const NOT_FOUND: &str = "DWARFS_NOT_FOUND";

/// Variables that decide what CMake finds.
const VARIABLES: [&str; 6] =
    ["CMAKE_PREFIX_PATH", "CMAKE_GENERATOR", "CXX", "CXXFLAGS", "dwarfs_DIR", "dwarfs_ROOT"];

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=build.rs");
    VARIABLES.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = build(&out) {
        println!("cargo::error={}", error.replace('\n', " | "));
    }
}

fn build(out: &Path) -> Result<(), String> {
    let tree = out.join("shim");
    // Another prefix or compiler than last time must not meet what the last one left.
    let _ = fs::remove_dir_all(&tree);
    let query = tree.join(".cmake/api/v1/query");
    fs::create_dir_all(&query)
        .and_then(|()| fs::write(query.join("codemodel-v2"), ""))
        .map_err(|error| format!("cannot write below {}: {error}", tree.display()))?;

    let mut configure = Command::new("cmake");
    configure.args(["-S", "shim", "-DCMAKE_BUILD_TYPE=Release", "-B"]).arg(&tree);
    if env::var_os("CMAKE_GENERATOR").is_none() && is_there("ninja") {
        // CMake's own choice is make, which a machine with ninja may lack.
        configure.args(["-G", "Ninja"]);
    }
    cmake(&mut configure)?;
    cmake(Command::new("cmake").args(["--build"]).arg(&tree).args(["--target", "dwarfs_shim"]))?;
    bindings(&out.join("shim.rs"))?;

    println!("cargo::rustc-link-search=native={}", tree.display());
    println!("cargo::rustc-link-lib=static=dwarfs_shim");
    for fragment in link_line(&tree.join(".cmake/api/v1/reply"))? {
        link(&fragment);
    }
    println!("cargo::rustc-link-lib=dylib=stdc++");
    Ok(())
}

/// Whether a program is on PATH.
fn is_there(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// Runs CMake, and says in one sentence why it failed.
fn cmake(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("the feature `libdwarfs` needs cmake: {NEEDS}"),
        _ => format!("cannot run cmake: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.contains(NOT_FOUND) {
        return Err(format!("the feature `libdwarfs` needs a library that is not installed: {NEEDS}"));
    }
    let output = String::from_utf8_lossy(&output.stdout);
    Err(format!("the feature `libdwarfs` cannot build its shim, {NEEDS}; cmake says: {text} {output}"))
}

/// Writes the declarations of shim.h.
fn bindings(target: &Path) -> Result<(), String> {
    // bindgen panics where it finds no libclang.
    let generated = std::panic::catch_unwind(|| {
        bindgen::Builder::default()
            .header("shim/shim.h")
            .allowlist_item("(shim|SHIM)_.*")
            .default_enum_style(bindgen::EnumVariation::Consts)
            .prepend_enum_name(false)
            .merge_extern_blocks(true)
            .derive_default(false)
            .generate()
    });
    let bindings = generated
        .map_err(|_| format!("the feature `libdwarfs` needs libclang: {NEEDS}"))?
        .map_err(|error| format!("bindgen cannot read shim.h: {error}"))?;
    bindings.write_to_file(target).map_err(|error| format!("cannot write {}: {error}", target.display()))
}

/// The libraries that `probe` would be linked with, in their order, as CMake's file API tells them.
fn link_line(reply: &Path) -> Result<Vec<String>, String> {
    let unclear = |what: &str| format!("cmake does not tell {what} (is it older than 3.20?)");
    let index = fs::read_dir(reply)
        .map_err(|error| format!("cannot list {}: {error}", reply.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("index-")))
        .max()
        .ok_or_else(|| unclear("an index"))?;
    let index = read(&index)?;
    let model = list(&index["objects"])
        .find(|object| object["kind"] == "codemodel")
        .and_then(|object| object["jsonFile"].as_str())
        .ok_or_else(|| unclear("its model"))?;
    let model = read(&reply.join(model))?;
    let probe = list(&model["configurations"])
        .flat_map(|configuration| list(&configuration["targets"]))
        .find(|target| target["name"] == "probe")
        .and_then(|target| target["jsonFile"].as_str())
        .ok_or_else(|| unclear("the target"))?;
    let probe = read(&reply.join(probe))?;
    let fragments = list(&probe["link"]["commandFragments"])
        .filter(|fragment| fragment["role"] == "libraries" || fragment["role"] == "libraryPath")
        .filter_map(|fragment| fragment["fragment"].as_str())
        .flat_map(str::split_whitespace)
        .map(str::to_owned);
    Ok(fragments.collect())
}

fn read(path: &Path) -> Result<Value, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no JSON: {error}", path.display()))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Passes one word of the link line on: a file, `-lNAME` or `-LDIR`. Flags of the compiler mean nothing here.
fn link(word: &str) {
    if let Some(name) = word.strip_prefix("-l") {
        println!("cargo::rustc-link-lib=dylib={name}");
    } else if let Some(folder) = word.strip_prefix("-L") {
        println!("cargo::rustc-link-search=native={folder}");
    } else if !word.starts_with('-') {
        let path = Path::new(word);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return;
        };
        // The shim itself; its path is relative to the build tree.
        if path.is_relative() {
            return;
        }
        println!("cargo::rustc-link-search=native={}", folder.display());
        match name.strip_prefix("lib").and_then(|name| name.strip_suffix(".a")) {
            Some(name) => println!("cargo::rustc-link-lib=static={name}"),
            // A file of one version (libNAME.so.1.2) is meant as it is.
            None => println!("cargo::rustc-link-lib=dylib:+verbatim={name}"),
        }
    }
}
