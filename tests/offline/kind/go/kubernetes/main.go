// All of Kubernetes that a node runs, as one program that acts as what it is called. What
// its commands share is compiled, linked and kept in the image once rather than seven times.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/restclient"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	rand.Seed(time.Now().UnixNano())
	name := filepath.Base(os.Args[0])
	if name == "kubeadm" {
		// It registers the flags of logging itself, and they are here already for the others.
		flag.CommandLine = flag.NewFlagSet(name, flag.ExitOnError)
		leave(kubeadm.Run())
	}
	commands := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllers.NewControllerManagerCommand,
		"kube-proxy":              proxy.NewProxyCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubectl":                 kubectl.NewDefaultKubectlCommand,
		"kubelet":                 kubelet.NewKubeletCommand,
	}
	if name == "kube-proxy" {
		chooseTables()
	}
	command, known := commands[name]
	if !known {
		leave(fmt.Errorf("nothing is called %q here", name))
	}
	run := command()
	pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	if name == "kubectl" || name == "kube-proxy" {
		pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
	}
	logs.InitLogs()
	err := run.Execute()
	logs.FlushLogs()
	leave(err)
}

// The commands have said what is wrong; kubeadm has not.
func leave(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
