//go:build tools

// Package vault names the main package that `hack/test-env vault` builds, so that `go mod tidy` keeps what it needs.
package vault

import _ "github.com/hashicorp/vault"
