// Router stands for the Beamline Router in a pod: it looks a policy up and asks for a decision at a steady rate, for
// its whole life and through its own drain, counts what failed, and prints the counts when it ends.
//
// Its settings are variables: see main.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Failure is one call that got no good answer.
type Failure struct {
	At    time.Time `json:"at"`
	Call  string    `json:"call"`
	Error string    `json:"error"`
	AgeMS int64     `json:"ms"`
}

// Counts is what it prints when it ends, and answers at /counts.
type Counts struct {
	Pod       string    `json:"pod"`
	Started   time.Time `json:"started"`
	FirstGood time.Time `json:"first_good"`
	LastGood  time.Time `json:"last_good"`
	Told      time.Time `json:"told_to_stop"`
	Now       time.Time `json:"now"`
	Lookups   int       `json:"lookups"`
	Decisions int       `json:"decisions"`
	// Calls under way at this moment.
	UnderWay int       `json:"under_way"`
	Failed   int       `json:"failed"`
	Failures []Failure `json:"failures"`
	// The longest time between two good answers.
	LongestGapMS int64   `json:"longest_gap_ms"`
	LookupP50    float64 `json:"lookup_p50_ms"`
	LookupP99    float64 `json:"lookup_p99_ms"`
	LookupMax    float64 `json:"lookup_max_ms"`
	DecisionP50  float64 `json:"decision_p50_ms"`
	DecisionP99  float64 `json:"decision_p99_ms"`
	DecisionMax  float64 `json:"decision_max_ms"`
	// The last bodies, so that a change of a policy is seen.
	Policy   string `json:"policy"`
	Decision string `json:"decision"`
	Final    bool   `json:"final"`
}

type router struct {
	mutex     sync.Mutex
	counts    Counts
	lookups   []float64
	decisions []float64
	client    *http.Client
	target    string
	policy    string
	body      []byte
}

func text(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func number(name string, otherwise int) int {
	value, err := strconv.Atoi(text(name, strconv.Itoa(otherwise)))
	if err != nil {
		fmt.Fprintln(os.Stderr, name, "must be a number")
		os.Exit(64)
	}
	return value
}

// call makes one, and counts it.
func (r *router) call(kind string) {
	begun := time.Now()
	r.mutex.Lock()
	r.counts.UnderWay++
	r.mutex.Unlock()
	answer, err := r.ask(kind)
	ended := time.Now()
	milliseconds := float64(ended.Sub(begun).Microseconds()) / 1000

	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.counts.UnderWay--
	if kind == "lookup" {
		r.counts.Lookups++
		r.lookups = append(r.lookups, milliseconds)
	} else {
		r.counts.Decisions++
		r.decisions = append(r.decisions, milliseconds)
	}
	if err != nil {
		r.counts.Failed++
		if len(r.counts.Failures) < 50 {
			r.counts.Failures = append(r.counts.Failures, Failure{begun, kind, err.Error(), ended.Sub(begun).Milliseconds()})
		}
		return
	}
	if kind == "lookup" {
		r.counts.Policy = answer
	} else {
		r.counts.Decision = answer
	}
	if r.counts.FirstGood.IsZero() {
		r.counts.FirstGood = ended
	} else if gap := ended.Sub(r.counts.LastGood).Milliseconds(); gap > r.counts.LongestGapMS {
		r.counts.LongestGapMS = gap
	}
	r.counts.LastGood = ended
}

func (r *router) ask(kind string) (string, error) {
	method, url, body := http.MethodGet, r.target+"/api/v1/policies/"+r.policy, io.Reader(nil)
	if kind == "decision" {
		method, url, body = http.MethodPost, r.target+"/api/v1/decide", bytes.NewReader(r.body)
	}
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err
	}
	if kind == "decision" {
		request.Header.Set("content-type", "application/json")
		// Without it the client would send a request again that a closed connection may have lost; each failure counts.
		request.GetBody = nil
	}
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %.200s", response.StatusCode, answer)
	}
	return string(answer), nil
}

// every makes calls until it is told to end; each in time, however long the one before takes.
func (r *router) every(kind string, rate int, end <-chan struct{}, calls *sync.WaitGroup) {
	defer calls.Done()
	if rate == 0 {
		return
	}
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for {
		select {
		case <-end:
			return
		case <-ticker.C:
			calls.Add(1)
			go func() {
				defer calls.Done()
				r.call(kind)
			}()
		}
	}
}

func percentile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[int(part*float64(len(sorted)-1))]
}

func (r *router) report(final bool) []byte {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	counts := r.counts
	counts.Now, counts.Final = time.Now(), final
	counts.LookupP50, counts.LookupP99, counts.LookupMax = percentile(r.lookups, 0.5), percentile(r.lookups, 0.99), percentile(r.lookups, 1)
	counts.DecisionP50, counts.DecisionP99, counts.DecisionMax = percentile(r.decisions, 0.5), percentile(r.decisions, 0.99), percentile(r.decisions, 1)
	line, err := json.Marshal(counts)
	if err != nil {
		panic(err)
	}
	return line
}

// flood asks without a pause, from so many clients at once.
func (r *router) flood(clients int, end <-chan struct{}, calls *sync.WaitGroup) {
	for range clients {
		calls.Add(1)
		go func() {
			defer calls.Done()
			for {
				select {
				case <-end:
					return
				default:
					r.call("lookup")
				}
			}
		}()
	}
}

// send tells the test; a pod's log is gone with the pod.
func send(url string, line []byte) {
	if url == "" {
		return
	}
	for range 5 {
		client := http.Client{Timeout: 2 * time.Second}
		response, err := client.Post(url, "application/json", bytes.NewReader(line))
		if err == nil {
			response.Body.Close()
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "the counts could not be sent to", url)
}

func main() {
	target := "http://" + text("HEIR_POLICY_STORE_HOST", "127.0.0.1") + ":" + text("HEIR_POLICY_STORE_PORT", "8080")
	policy := text("ROUTER_POLICY", "acme/chat")
	tenant, id, _ := strings.Cut(policy, "/")
	collector := os.Getenv("ROUTER_COLLECTOR")
	r := &router{target: target, policy: policy, client: &http.Client{
		Timeout:   time.Duration(number("ROUTER_TIMEOUT_MS", 2000)) * time.Millisecond,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 64, IdleConnTimeout: 30 * time.Second},
	}}
	r.body = fmt.Appendf(nil, `{"version":"1","request_id":"r-1","tenant_id":%q,"policy_id":%q,"task":{"type":"chat","payload":{"text":%q}},"metadata":{"user_id":"ada"}}`,
		tenant, id, text("ROUTER_TEXT", "Good morning"))
	r.counts.Pod, r.counts.Started = text("HOSTNAME", "router"), time.Now()
	send(collector, r.report(false))

	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	http.HandleFunc("/counts", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(r.report(false)) })
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if r.counts.FirstGood.IsZero() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	go func() {
		if err := http.ListenAndServe(":9000", nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()

	end, calls := make(chan struct{}), &sync.WaitGroup{}
	// The first call is made at once: what starts before the sidecar can answer fails here.
	calls.Add(1)
	go func() {
		defer calls.Done()
		r.call("lookup")
		calls.Add(2)
		go r.every("lookup", number("ROUTER_LOOKUPS", 20), end, calls)
		go r.every("decision", number("ROUTER_DECISIONS", 20), end, calls)
		r.flood(number("ROUTER_FLOOD", 0), end, calls)
	}()
	if seconds := number("ROUTER_SECONDS", 0); seconds > 0 {
		// A job: it ends by itself.
		time.Sleep(time.Duration(seconds) * time.Second)
	} else {
		<-told
		r.mutex.Lock()
		r.counts.Told = time.Now()
		r.mutex.Unlock()
		time.Sleep(time.Duration(number("ROUTER_DRAIN_SECONDS", 3)) * time.Second)
	}
	close(end)
	calls.Wait()
	line := r.report(true)
	fmt.Println(string(line))
	send(collector, line)
	if r.counts.Failed > 0 {
		os.Exit(1)
	}
}
