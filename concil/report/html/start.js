// Shows a run that has ended.

head();
headTotals();
failures();
legend();
slowest();
refilter();
footer();
timeline.recolour();
timeline.draw();
