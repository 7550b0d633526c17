// Cluster is Kubernetes in one binary, for tests: etcd, the API server, the controllers, the scheduler, the kubelet
// and kubectl, each as a subcommand. Under the name kubectl it is that.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func etcd() *cobra.Command {
	var dir, listen string
	cmd := &cobra.Command{
		Use: "etcd",
		RunE: func(*cobra.Command, []string) error {
			address, err := url.Parse(listen)
			if err != nil {
				return err
			}
			peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
			config := embed.NewConfig()
			config.Dir = dir
			config.LogLevel = "error"
			config.ListenClientUrls = []url.URL{*address}
			config.AdvertiseClientUrls = config.ListenClientUrls
			config.ListenPeerUrls = []url.URL{peer}
			config.AdvertisePeerUrls = config.ListenPeerUrls
			config.InitialCluster = config.InitialClusterFromName(config.Name)
			config.UnsafeNoFsync = true
			server, err := embed.StartEtcd(config)
			if err != nil {
				return err
			}
			stop := make(chan os.Signal, 1)
			signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
			select {
			case <-stop:
			case err = <-server.Err():
			}
			server.Close()
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "where it keeps its data")
	cmd.Flags().StringVar(&listen, "listen", "http://127.0.0.1:2379", "where it listens for clients")
	return cmd
}

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" {
		os.Args = append([]string{"cluster", "kubectl"}, os.Args[1:]...)
	}
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: cluster etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy|kubectl")
		os.Exit(2)
	}
	component := os.Args[1]
	os.Args = append([]string{component}, os.Args[2:]...)
	var cmd *cobra.Command
	switch component {
	case "etcd":
		cmd = etcd()
	case "kube-apiserver":
		cmd = apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		cmd = controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		cmd = scheduler.NewSchedulerCommand()
	case "kubelet":
		cmd = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		cmd = proxy.NewProxyCommand()
	case "kubectl":
		cmd = kubectl.NewDefaultKubectlCommand()
	default:
		fmt.Fprintln(os.Stderr, "no such component:", component)
		os.Exit(2)
	}
	os.Exit(cli.Run(cmd))
}
