//! Prints the manifest's JSON Schema: what `cargo xtask schemas` keeps in docs/schemas/.

fn main() {
    println!("{:#}", manifest::json_schema());
}
