package main

import "fmt"

// group is what is measured with the same processes.
type group struct {
	scenario string
	nodes    int
	runs     []run
}

// run is one way to call gateway-bench, on the floor and on the gateway in turn.
type run struct {
	name       string
	flags      []string
	floorFlags []string
	thrice     bool // the best of three counts
}

func (r run) times() int {
	if r.thrice {
		return 3
	}
	return 1
}

func groups() []group {
	return []group{
		{"idle", 1, []run{{name: "idle", flags: []string{"--connections", "10000"}, floorFlags: []string{"--duration", "5s"}}}},
		{"fanout", 1, []run{
			{name: "one", flags: []string{"--duration", "5s"}, thrice: true},
			{name: "sixteen", flags: []string{"--duration", "5s", "--in-flight", "16"}, thrice: true},
			{name: "steady", flags: []string{"--rate", "100"}},
		}},
		{"direct", 2, []run{
			{name: "many", flags: []string{"--in-flight", "64"}},
			{name: "few", flags: []string{"--rate", "500"}},
		}},
		{"storm", 1, []run{{name: "storm", flags: []string{"--connections", "8000"}, thrice: true}}},
	}
}

// row is a line of the table.
type row struct {
	name, scenario string
	run, figure    string // where the value is
	unit           string
	must, aim      float64
	more           bool // more is better
	relative       bool // must and aim are ratios to the floor
}

func rows() []row {
	return []row{
		{name: "memory per idle connection, 10,000 (RSS)", scenario: "idle", run: "idle", figure: "server RSS per connection", unit: "KiB", must: 10, aim: 4},
		{name: "CPU for pings to 10,000 connections", scenario: "idle", run: "idle", figure: "server CPU", unit: "ms/s", must: 15, aim: 5},
		{name: "CPU per delivery, 1,000 subscribers, one message at a time", scenario: "fanout", run: "one", figure: "server CPU per delivery", unit: "us", must: 1.3, aim: 1.1, relative: true},
		{name: "deliveries/s, 16 messages in flight", scenario: "fanout", run: "sixteen", figure: "deliveries/s", must: 0.5, aim: 0.9, more: true, relative: true},
		{name: "p50 of 100 messages/s to 1,000 subscribers", scenario: "fanout", run: "steady", figure: "latency p50", unit: "ms", must: 6, aim: 4},
		{name: "direct message across nodes, 64 in flight: gateways", scenario: "direct", run: "many", figure: "server CPU per message", unit: "us", must: 70, aim: 45},
		{name: "the same: Redis", scenario: "direct", run: "many", figure: "redis CPU per message", unit: "us", must: 25, aim: 15},
		{name: "direct message across nodes, 500/s: p99", scenario: "direct", run: "few", figure: "latency p99", unit: "ms", must: 0.9, aim: 0.5},
		{name: "storm, 8,000 back with resume: CPU per connection", scenario: "storm", run: "storm", figure: "server CPU per connection", unit: "us", must: 200, aim: 130},
		{name: "the same: Redis", scenario: "storm", run: "storm", figure: "redis CPU per connection", unit: "us", must: 150, aim: 100},
	}
}

// limit is a bound as the table shows it.
func (r row) limit(value float64) string {
	sign, unit := "<=", r.unit
	if r.more {
		sign = ">="
	}
	if r.relative {
		unit = "x floor"
	}
	return fmt.Sprintf("%s %g %s", sign, value, unit)
}
