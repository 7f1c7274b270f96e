// A process with client-go's candidates, for comparison: as many Leases as asked for, with the settings that Kubernetes'
// own components have. It prints "leading INDEX" and "stopped INDEX", and stops the candidates whose INDEX it reads.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "")
	prefix := flag.String("prefix", "", "of the Leases' names")
	leases := flag.Int("leases", 1, "")
	pod := flag.String("pod", "", "")
	spread := flag.Int64("spread", 0, "the seconds over which the candidates begin")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	config.QPS = -1 // One process stands for many.
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	var output sync.Mutex
	say := func(what string, lease int) {
		output.Lock()
		defer output.Unlock()
		fmt.Println(what, lease)
	}
	stop := make([]context.CancelFunc, *leases)
	for lease := range *leases {
		shutdown, cancel := context.WithCancel(context.Background())
		stop[lease] = cancel
		go func() {
			time.Sleep(time.Duration(rand.Float64() * float64(*spread) * float64(time.Second)))
			lock, err := resourcelock.New(resourcelock.LeasesResourceLock, "default", fmt.Sprintf("%s-%d", *prefix, lease),
				client.CoreV1(), client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: *pod})
			if err != nil {
				log.Fatal(err)
			}
			leaderelection.RunOrDie(shutdown, leaderelection.LeaderElectionConfig{
				Lock:            lock,
				ReleaseOnCancel: true,
				LeaseDuration:   15 * time.Second,
				RenewDeadline:   10 * time.Second,
				RetryPeriod:     2 * time.Second,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(term context.Context) {
						say("leading", lease)
						<-term.Done()
						say("stopped", lease)
					},
					OnStoppedLeading: func() {},
				},
			})
		}()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		lease, err := strconv.Atoi(lines.Text())
		if err != nil {
			log.Fatal(err)
		}
		stop[lease]()
	}
}
