//go:build tools

// Package kubernetes names the main packages that hack/test-env builds, so that `go mod tidy` keeps what they need.
// To build another one (kubelet, kube-scheduler, ...): import it here, run ./update, and add it to hack/test-env.
package kubernetes

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
)
