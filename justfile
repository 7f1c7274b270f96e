# Shortcuts for the commands of README.md and CONTRIBUTING.md; a test holds them to each other.

# What there is.
default:
    @just --list

# A pod's credential from issue to revocation, with everything embedded.
quickstart *arguments:
    cargo run -p quickstart {{ arguments }}

# Installs what the tests need and runs them, or these stages only.
test *stages:
    hack/test {{ stages }}

# What fails soonest.
check:
    hack/test fmt clippy unit

# The book, with its links checked.
book:
    hack/test book

# The public API, and the packages with the oldest Rust.
api:
    hack/test api

# The container image.
image *arguments:
    hack/image {{ arguments }}

# A measurement: admission, latency, endurance, leadership, revocation, renewal, node-plugin or scale.
bench name *arguments:
    cargo run --release -p benches -- {{ name }} {{ arguments }}

# Writes the references that are made from the code.
references:
    hack/references
