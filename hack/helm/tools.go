//go:build tools

// Package helm names the main package that hack/test-env builds, so that `go mod tidy` keeps what it needs.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
