// Shows a run that has ended.

head();
headTotals();
failures();
destinations();
legend();
slowest();
refilter();
footer();
timeline.recolour();
timeline.draw();
