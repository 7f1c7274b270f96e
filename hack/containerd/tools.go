//go:build tools

// Package containerd names the main packages that hack/test-env builds, so that `go mod tidy` keeps what they need. It is a module
// of its own because its versions and those of Kubernetes differ.
package containerd

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
