// The cluster's DNS, where kubeadm expects CoreDNS, of which Debian has no package. It knows
// the addresses of Services and of the pods behind headless ones (no SRV, no PTR), and asks
// the node's own name server about all else.
package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/miekg/dns"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
)

const (
	zone = "cluster.local."
	// Seconds that an answer may be kept: a test that replaces a Service waits no longer.
	kept = 2
)

type server struct {
	services  listers.ServiceLister
	endpoints listers.EndpointsLister
	upstream  string
}

func main() {
	// kubeadm's manifest asks for health here from the first second on.
	go answerOK(":8080")
	config, err := rest.InClusterConfig()
	must(err)
	client, err := kubernetes.NewForConfig(config)
	must(err)
	factory := informers.NewSharedInformerFactory(client, 0)
	core := factory.Core().V1()
	s := &server{services: core.Services().Lister(), endpoints: core.Endpoints().Lister()}
	if resolv, err := dns.ClientConfigFromFile("/etc/resolv.conf"); err == nil && len(resolv.Servers) > 0 {
		s.upstream = net.JoinHostPort(resolv.Servers[0], resolv.Port)
	}
	forever := context.Background().Done()
	factory.Start(forever)
	for kind, synced := range factory.WaitForCacheSync(forever) {
		if !synced {
			log.Fatalf("%v can't be listed", kind)
		}
	}
	for _, transport := range []string{"udp", "tcp"} {
		listener := &dns.Server{Addr: ":53", Net: transport, Handler: s}
		go func() { must(listener.ListenAndServe()) }()
	}
	// Ready: what is asked from now on is answered.
	answerOK(":8181")
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func answerOK(address string) {
	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	must(http.ListenAndServe(address, http.HandlerFunc(ok)))
}

func (s *server) ServeDNS(w dns.ResponseWriter, request *dns.Msg) {
	var answer *dns.Msg
	switch {
	case len(request.Question) != 1:
		answer = new(dns.Msg).SetRcode(request, dns.RcodeFormatError)
	case dns.IsSubDomain(zone, strings.ToLower(request.Question[0].Name)):
		answer = s.local(request)
	default:
		answer = s.forward(request, w.RemoteAddr().Network())
	}
	if err := w.WriteMsg(answer); err != nil {
		log.Print(err)
	}
}

func (s *server) forward(request *dns.Msg, transport string) *dns.Msg {
	client := &dns.Client{Net: transport, Timeout: 3 * time.Second}
	answer, _, err := client.Exchange(request, s.upstream)
	if err != nil {
		return new(dns.Msg).SetRcode(request, dns.RcodeServerFailure)
	}
	return answer
}

func (s *server) local(request *dns.Msg) *dns.Msg {
	answer := new(dns.Msg).SetReply(request)
	answer.Authoritative = true
	question := request.Question[0]
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: kept}
	}
	addresses, alias, known := s.look(strings.ToLower(question.Name))
	if !known {
		answer.Rcode = dns.RcodeNameError
	}
	if alias != "" {
		answer.Answer = append(answer.Answer, &dns.CNAME{Hdr: header(dns.TypeCNAME), Target: alias})
		// Resolvers of pods don't ask again for what an alias stands for.
		further := new(dns.Msg).SetQuestion(alias, question.Qtype)
		answer.Answer = append(answer.Answer, s.forward(further, "udp").Answer...)
	}
	for _, address := range addresses {
		ip := net.ParseIP(address)
		switch {
		case ip.To4() != nil && question.Qtype == dns.TypeA:
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header(dns.TypeA), A: ip})
		case ip.To4() == nil && question.Qtype == dns.TypeAAAA:
			answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: ip})
		}
	}
	return answer
}

// What [HOST.]SERVICE.NAMESPACE.svc.cluster.local. stands for, and whether there is such a name.
func (s *server) look(name string) (addresses []string, alias string, known bool) {
	labels := dns.SplitDomainName(strings.TrimSuffix(name, zone))
	host := ""
	if len(labels) == 4 {
		host, labels = labels[0], labels[1:]
	}
	if len(labels) != 3 || labels[2] != "svc" {
		return nil, "", false
	}
	service, err := s.services.Services(labels[1]).Get(labels[0])
	if err != nil {
		return nil, "", false
	}
	switch {
	case service.Spec.Type == v1.ServiceTypeExternalName:
		return nil, dns.Fqdn(service.Spec.ExternalName), host == ""
	case service.Spec.ClusterIP != v1.ClusterIPNone:
		return []string{service.Spec.ClusterIP}, "", host == ""
	}
	endpoints, err := s.endpoints.Endpoints(labels[1]).Get(labels[0])
	if err != nil {
		return nil, "", host == ""
	}
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			if host == "" || host == address.Hostname {
				addresses = append(addresses, address.IP)
			}
		}
	}
	return addresses, "", host == "" || len(addresses) > 0
}
